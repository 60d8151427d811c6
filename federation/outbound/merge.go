package outbound

import "encoding/json"

// merged makes few EDUs of many: one m.receipt can hold the receipts of many
// rooms and users, one m.presence many people. The rest stays as it is.
func merged(offers []offer) []*EDU {
	var edus []*EDU
	var receipts []receiptContent
	var people []json.RawMessage
	for _, o := range offers {
		switch o.edu.Type {
		case "m.receipt":
			var c receiptContent
			if json.Unmarshal(o.edu.Content, &c) == nil {
				receipts = addReceipts(receipts, c)
				continue
			}
		case "m.presence":
			var c presenceContent
			if json.Unmarshal(o.edu.Content, &c) == nil {
				people = append(people, c.Push...)
				continue
			}
		}
		edus = append(edus, o.edu)
	}
	for _, c := range receipts {
		edus = append(edus, newEDU("m.receipt", c))
	}
	if len(people) > 0 {
		edus = append(edus, newEDU("m.presence", presenceContent{people}))
	}
	return edus
}

func newEDU(typ string, content any) *EDU {
	text, _ := json.Marshal(content) // it was read from JSON
	return &EDU{typ, text}
}

// receiptContent has receipts by room, type and user.
// spec: server-server#receipts
type receiptContent map[string]map[string]map[string]json.RawMessage

// presenceContent is a list of people.
// spec: server-server#presence
type presenceContent struct {
	Push []json.RawMessage `json:"push"`
}

// addReceipts lays receipts into the first content in which the users have none
// of that room and type: they may have read several threads.
func addReceipts(all []receiptContent, c receiptContent) []receiptContent {
	for room, types := range c {
		for typ, users := range types {
			for user, receipt := range users {
				all = addReceipt(all, room, typ, user, receipt)
			}
		}
	}
	return all
}

func addReceipt(all []receiptContent, room, typ, user string, receipt json.RawMessage) []receiptContent {
	for _, c := range all {
		if _, taken := c[room][typ][user]; !taken {
			c.set(room, typ, user, receipt)
			return all
		}
	}
	c := receiptContent{}
	c.set(room, typ, user, receipt)
	return append(all, c)
}

func (c receiptContent) set(room, typ, user string, receipt json.RawMessage) {
	if c[room] == nil {
		c[room] = map[string]map[string]json.RawMessage{}
	}
	if c[room][typ] == nil {
		c[room][typ] = map[string]json.RawMessage{}
	}
	c[room][typ][user] = receipt
}
