"use strict";

// A bridge of one person that is written with matrix-bot-sdk as it is. It pings the
// homeserver, accepts invitations, answers "ping" as a user of its namespace, and
// prints what it is sent, an object a line.
const { Appservice, LogLevel, LogService } = require("matrix-bot-sdk");

const { HOMESERVER, PORT, AS_TOKEN, HS_TOKEN } = process.env;
const print = (what, value) => console.log(JSON.stringify({ what, value }));
LogService.setLevel(LogLevel.ERROR);
LogService.setLogger({ error: (...all) => print("error", all.map(String)), warn() {}, info() {}, debug() {}, trace() {} });

const bridge = new Appservice({
    bindAddress: "127.0.0.1", port: Number(PORT), homeserverName: "localhost", homeserverUrl: HOMESERVER,
    registration: {
        id: "sdk", url: `http://127.0.0.1:${PORT}`, as_token: AS_TOKEN, hs_token: HS_TOKEN, sender_localpart: "sdkbot",
        namespaces: { users: [{ exclusive: true, regex: "@sdk_.*:localhost" }], aliases: [], rooms: [] },
    },
});
bridge.expressAppInstance.post("/_matrix/app/v1/ping", (request, response) => response.json({}));
bridge.on("room.invite", async (room, event) => {
    await bridge.getIntentForUserId(event.state_key).joinRoom(room);
});
bridge.on("room.message", async (room, event) => {
    print("message", event);
    if (event.content.body === "ping") {
        await bridge.getIntentForUserId("@sdk_ann:localhost").sendText(room, "pong");
    }
});
bridge.on("ephemeral.event", (event) => print("ephemeral", event));
bridge.on("device_lists", (lists) => print("device_lists", lists));
bridge.on("otk.counts", (counts) => print("counts", counts));

(async () => {
    await bridge.begin();
    await bridge.getIntentForUserId("@sdk_ann:localhost").ensureRegistered();
    const answer = await bridge.botClient.doRequest("POST", "/_matrix/client/v1/appservice/sdk/ping", null, { transaction_id: "t" });
    print("ready", answer);
})().catch((error) => {
    print("error", String(error));
    process.exit(1);
});
