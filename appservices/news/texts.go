package news

import (
	"fmt"

	"maunium.net/go/mautrix/event"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

var messageType = event.EventMessage

// say is a text of the catalogue in a language; what there is not in it is English.
func say(language, key string, args ...any) string {
	t := catalogue[key]
	text := t.en
	if language == "zh" {
		text = t.zh
	}
	return fmt.Sprintf(text, args...)
}

type texts struct{ en, zh string }

// words is the catalogue as the kit takes it.
func words() kit.Catalogue {
	c := kit.Catalogue{"en": {}, "zh": {}}
	for key, t := range catalogue {
		c["en"][key], c["zh"][key] = t.en, t.zh
	}
	return c
}

var catalogue = map[string]texts{
	"digest":              {"News", "新闻"},
	"broken":              {"%[1]s cannot be fetched since a day or longer (%[3]s). I keep trying, ever more rarely. Its address is %[2]s", "%[1]s 已有一天以上无法获取（%[3]s）。我会继续尝试。地址：%[2]s"},
	"gone":                {"%[1]s is gone for good, says its server, so it is not followed any more (%[3]s). Its address was %[2]s", "%[1]s 的服务器表示它已永久消失，因此不再关注（%[3]s）。地址：%[2]s"},
	"forbidden":           {"Only people who may change this room's settings can do that here. In a direct chat with me everybody can.", "只有可以更改此房间设置的人才能这样做。在与我的私聊中人人都可以。"},
	"mutehere":            {"I may not write in %s, so I changed nothing there. Have somebody who may change its settings allow me to, and say it again.", "我在 %s 不能发言，所以没有更改。请让可以更改房间设置的人允许我发言，然后再说一次。"},
	"silenced":            {"I may not write in %s any more. What is published waits until I may.", "我在 %s 不能发言了。新的内容会等到我可以发言时再发送。"},
	"failed":              {"That did not work: %s. Please try again later.", "操作失败：%s。请稍后再试。"},
	"notfound":            {"I found no feed at %s (%s). Give me the address of a feed, or of a page that has one.", "在 %s 没有找到订阅源（%s）。请给我订阅源的地址，或包含订阅源的网页地址。"},
	"already":             {"%s is followed here already.", "这里已经关注了 %s。"},
	"followed":            {"%s is followed here now. What it publishes from now on comes here.", "现在关注了 %s。新的内容会发送到这里。"},
	"latest":              {"The latest so far: %s", "目前最新：%s"},
	"others":              {"That page has more feeds; follow them by their addresses:", "该网页还有其他订阅源，可用地址关注："},
	"full":                {"A room can follow %d feeds at most.", "一个房间最多可以关注 %d 个订阅源。"},
	"unknown":             {"%s is not followed here. \"list\" shows what is.", "这里没有关注 %s。用“列表”查看。"},
	"unfollowed":          {"%s is not followed any more.", "已取消关注 %s。"},
	"nothing":             {"Nothing is followed here yet. Say: follow https://example.org", "这里还没有关注任何内容。请说：关注 https://example.org"},
	"list":                {"Followed here:", "这里关注的："},
	"unfetched":           {"not fetched yet", "尚未获取"},
	"problem":             {"problem: %s", "问题：%s"},
	"only":                {"only: %s", "仅：%s"},
	"mutes":               {"Muted: %s", "屏蔽词：%s"},
	"filtered":            {"Of %s only what mentions one of these comes here: %s", "%s 中只有提到以下词语的内容会发送到这里：%s"},
	"unfiltered":          {"Everything of %s comes here.", "%s 的所有内容都会发送到这里。"},
	"muted":               {"Nothing comes here that mentions one of these: %s", "提到以下词语的内容不会发送到这里：%s"},
	"unmuted":             {"No words are muted.", "没有屏蔽任何词语。"},
	"digested":            {"News come as one list, every day at %s (%s).", "新闻将在每天 %s（%s）以列表形式发送。"},
	"undigested":          {"News come as soon as they are published.", "新闻发布后会立即发送。"},
	"quieted":             {"Nothing comes from %s to %s (%s); what is published meanwhile comes after that.", "%s 至 %s（%s）期间不发送；其间发布的内容会在之后发送。"},
	"unquiet":             {"There are no quiet hours any more.", "不再有安静时段。"},
	"badtime":             {"%s is no time of the day. Write 8:00, or 22:00-7:00 for quiet hours.", "%s 不是有效时间。请写 8:00，安静时段写 22:00-7:00。"},
	"badzone":             {"%s is no time zone. Write one like Europe/Berlin or Asia/Shanghai.", "%s 不是时区。请写如 Europe/Berlin 或 Asia/Shanghai。"},
	"top":                 {"Top stories of the last seven days:", "最近七天的热门："},
	"notop":               {"Nobody has reacted to an entry in the last seven days. In a list, react with an entry's number, such as 1️⃣ or 12.", "最近七天没有人对内容作出回应。对列表中的内容，请用编号回应，如 1️⃣ 或 12。"},
	"saved":               {"Saved. In a direct chat with me \"saved\" lists it.", "已收藏。在与我的私聊中用“收藏夹”查看。"},
	"savewhat":            {"Reply to a message of mine with \"save\", or react to it with 🔖.", "请用“收藏”回复我的消息，或用 🔖 回应。"},
	"savedlist":           {"What you saved:", "你的收藏："},
	"nosaved":             {"You have saved nothing yet. React with 🔖 to what you want to keep.", "你还没有收藏。对想保留的内容用 🔖 回应。"},
	"private":             {"I tell that in a direct chat only.", "这只能在私聊中查看。"},
	"nolist":              {"That is no list of feeds that I can read (%s). Send me an OPML file, or the address of one.", "这不是我能读取的订阅列表（%s）。请发送 OPML 文件或其地址。"},
	"imported":            {"%d feeds are followed from now on; %d of the list were followed already or cannot be.", "新关注了 %d 个订阅源；列表中有 %d 个已关注或无法关注。"},
	"problem.unreachable": {"it cannot be reached", "无法访问"},
	"problem.slow":        {"it takes too long", "响应太慢"},
	"problem.large":       {"it is too large", "内容过大"},
	"problem.insecure":    {"it has no secure connection that I trust", "没有可信任的安全连接"},
	"problem.nofeed":      {"it is no feed", "不是订阅源"},
	"problem.noaddress":   {"it is no address of the web", "不是网址"},
	"problem.nolist":      {"it is no OPML list", "不是 OPML 列表"},
	"problem.homeserver":  {"the homeserver does not allow it", "主服务器不允许"},
	"problem.ours":        {"something is wrong here", "这边出了问题"},
	"toolong":             {"Too long: %s. A word may have %d characters. I changed nothing.", "太长：%s。每个词语最多 %d 个字符。没有更改。"},
	"toomany":             {"That is too much: %d words at most. I changed nothing.", "太多：最多 %d 个词语。没有更改。"},
	"usage":               {"Please say: %s", "请说：%s"},
	"fewer":               {"%d addresses at a time, please, or an OPML list.", "每次最多 %d 个地址，或者发送 OPML 列表。"},
	"args.url":            {"ADDRESS", "地址"},
	"args.feed":           {"NUMBER or ADDRESS", "编号或地址"},
	"args.filter":         {"NUMBER WORD, WORD … or off", "编号 词语，词语…… 或 关闭"},
	"args.words":          {"WORD, WORD … or off", "词语，词语…… 或 关闭"},
	"args.digest":         {"8:00 [Europe/Berlin] or off", "8:00 [Asia/Shanghai] 或 关闭"},
	"args.quiet":          {"22:00-7:00 [Europe/Berlin] or off", "22:00-7:00 [Asia/Shanghai] 或 关闭"},
	"args.import":         {"ADDRESS, or as a reply to a file", "地址，或回复文件"},
	"help.follow":         {"sends here what a feed, or the feed of a page, publishes", "把订阅源（或网页的订阅源）的新内容发送到这里"},
	"help.unfollow":       {"ends that", "取消关注"},
	"help.list":           {"shows what is followed here, with numbers", "显示这里的关注列表和编号"},
	"help.filter":         {"lets only what mentions one of the words come of a feed", "某订阅源只发送提到这些词语的内容"},
	"help.mute":           {"keeps away what mentions one of the words", "不发送提到这些词语的内容"},
	"help.digest":         {"has everything come as one list, once a day", "每天一次以列表形式发送"},
	"help.quiet":          {"has nothing come in these hours", "这些时段内不发送"},
	"help.top":            {"shows what most people here reacted to, of the last seven days; in lists, by an entry's number", "显示最近七天回应最多的内容；列表中请用编号回应"},
	"help.save":           {"as a reply: keeps an entry for you; so does the reaction 🔖", "回复某条内容即可收藏；也可用 🔖 回应"},
	"help.saved":          {"shows what you kept", "显示你的收藏"},
	"help.import":         {"follows all feeds of an OPML list", "关注 OPML 列表中的所有订阅源"},
	"help.export":         {"sends what is followed here as an OPML file", "以 OPML 文件发送这里的关注列表"},
	"help.publish":        {"makes a public room in which a feed appears", "为订阅源创建公开的广播房间"},
	"args.published":      {"ADDRESS", "地址"},
	"help.unpublish":      {"ends such a room", "结束这样的房间"},
	"publishwho":          {"Only people of %s can have me make public rooms.", "只有 %s 的用户可以让我创建公开房间。"},
	"publishmany":         {"I have made %d public rooms for you, and that is enough for now. \"unpublish\" ends one.", "我已为你创建了 %d 个公开房间，暂时不能再多。可用“取消发布”结束其中一个。"},
	"unpublished":         {"%s is closed: it is not in the directory any more, and I have left it.", "%s 已关闭：不再列入目录，我已离开。"},
	"unpublishwhat":       {"I have no public room for %s.", "%s 没有公开房间。"},
	"unpublishwho":        {"Only who had me make %s, or an administrator of that room, can close it.", "只有当初让我创建 %s 的人或该房间的管理员才能关闭它。"},
	"closed":              {"This room is closed. Nothing comes here any more.", "此房间已关闭，不再有新内容。"},
	"published":           {"%s has a room of its own now, where only I speak: %s", "%s 现在有了自己的广播房间：%s"},
}
