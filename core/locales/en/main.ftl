# Plain text without Markdown. A test holds every language to the same keys and variables.

## First contact

start =
    Hello, { $name }! Send me a message to start.
    If one AI provider stops responding, another one answers, so you can simply keep talking.

    /new starts a new conversation, /model picks a model, /help lists everything else.
help =
    Send a message and I will answer. In a group, mention me, reply to me, or use /ask.

    /new: start a new conversation
    /threads: continue, rename or delete earlier conversations
    /compact: shorten the memory of a long conversation
    /model: choose a model
    /schedule: reminders and scheduled prompts
    /compare: ask two models and choose the better answer
    /image: draw a picture, where that is set up
    /stop: stop the current answer
    /usage: tokens, answers and cost, today and this month
    /budget: your budget for today
    /settings: how answers are shown, language, persona
    /persona: choose how I answer in this conversation
    /language: choose the language of my messages
    /privacy: where your messages may be sent
    /forget: erase everything that I have stored about you
    /help: this list

    The buttons under an answer: Retry asks again, Retry elsewhere asks another provider.
help-operators =
    For operators:
    /provider: status and control of the providers
    /stats: people, chats, answers and cost of the whole bot
    /audit: actions of operators and group admins
    /broadcast: write to everyone who has a private chat with the bot
    /ban_user, /unban_user: block or unblock a person or a chat
    /budget user or chat: daily budgets
    /dead: messages that could not be handled
    /console: the console in the browser
new-done = Started a new conversation. What would you like to talk about?
unknown-command = Unknown command. /help lists the commands.
press-invalid = This button is not valid.
not-allowed = This bot is limited to selected users and groups. Please ask its operator for access.

## During an answer

ask-usage = Add your question after the command: /ask why is the sky blue?
guest-waiting = One moment, I am writing an answer.
nothing-asked = Add your question to the mention and I will answer.
rate-limited = You are writing faster than I may answer. Please go on in { $seconds } s; messages until then are not read.
queue-full = Too many messages are waiting in this chat. Please send this one again in a moment.
stopping = Stopping.
stopped = Stopped.
nothing-to-stop = There is no answer to stop.
interrupted = The answer was interrupted.
shutting-down = The bot is restarting, so this answer ends here. Please try again in a minute.
handed-back = The bot is restarting. This answer will continue in a moment.

## Failures

failed-all-providers = All AI providers are unavailable right now. Please try again in a minute.
failed-refused = The provider declined to answer: { $reason }
failed-rejected = The AI providers rejected this request. Please rephrase it.
failed-too-long = This message is too long for every available model. Please shorten it, or send it in parts.
failed-limit = This request needs more steps than one answer may take. Please ask for less at once.
failed-budget-user = Your budget for today is used up. It renews at { $time }.
failed-budget-chat = The budget of this chat for today is used up. It renews at { $time }.
failed-budget-all = Today’s budget of this bot is used up. It renews at { $time }.
memory-compacted = This conversation has become long: I will remember its earlier part as a summary. /threads keeps all of it.
compact-done = The earlier part of this conversation is now a summary. I will remember it, and answers get cheaper.
compact-nothing = There is nothing to summarise yet.
compact-failed = No AI provider could summarise this conversation right now, so nothing has changed. Please try again later.
answer-cut = The answer was cut at its length limit.
continue-prompt = Your answer was cut at its length limit. Continue exactly where it ended, without repeating anything.
empty-answer = The model returned an empty answer.
answer-waiting = Working on the answer…
activity-search = Searching the web: { $query }
activity-page = Reading a page: { $site }
activity-tool = Working with { $name }
answer-goes-on = The answer is long. It will come as a file.
answer-as-file = The whole answer
answer-too-long = The rest of the answer does not fit here.
failed-unexpected = Something went wrong on our side. The error has been logged. Please try again.
failed-storage = The database is unavailable right now. Please try again in a moment.
failed-storage-footer = This answer could not be saved yet, so I may not remember it later.
degraded-memory-footer = The earlier conversation could not be loaded for this answer.

## Attachments

unsupported-media = This kind of message is not supported yet. Send text, pictures, recordings or documents.
cannot-see-image = The model that answered cannot see pictures; the answer is based on the text alone.
cannot-hear-audio = Voice messages and audio are not set up on this bot. Please send text instead.
audio-too-long = This recording is too long: I can listen to { $minutes } minutes at most.
audio-broken = The sound of this file cannot be read: it is damaged, or in an unknown format.
audio-silent = There is no sound in this file.
failed-transcription = The voice message could not be transcribed right now. Please try again in a minute.
failed-heard-nothing = Nothing was heard in this recording.
file-not-fetched = The file could not be downloaded from Telegram. Please send it again.
file-too-large = This file is too large. Please send a smaller one.
image-usage = Describe the picture after the command: /image a fox in the snow
image-cannot-edit = Pictures cannot be edited here, only drawn. Describe the whole picture: /image a fox in the snow
images-not-set-up = Drawing is not set up on this bot.
picture-gone = This picture is no longer kept.
document-encrypted = This document is protected by a password. Remove the protection, and send it again.
document-broken = This document is damaged and cannot be read.
document-empty = There is no text in this document. If its pages are pictures, send them as pictures.
document-mislabelled = This file is not what its name says, so it was not read.
text-encoding = I cannot tell how the text of this file is encoded. Please save it as UTF-8 and send it again.
document-too-much = This document needs more memory or time than a file may take, so it was not read.
document-by-part = { $name } is long: I have read part 1 of { $parts } and will look into the others when you ask.
document-cut = Only the first { $characters } characters of { $name } were read.

## Tools that act

call-question = Allow this? { $what }
call-allowed = Allowed.
call-denied = Denied.
call-gone = This can no longer be decided. Please ask again.
call-owner-only = Only the person who asked can decide this.
call-prompt-allowed = I allow this: { $what }
call-prompt-denied = I do not allow this: { $what }
button-allow-once = Allow once
button-allow-always = Always for me
button-deny = Deny

## Schedules

schedule-title = Your reminders and scheduled prompts in this chat:
schedule-none =
    Nothing is scheduled here. Tell me in your own words, or use:
    /schedule in 10 minutes take the cake out
    /schedule tomorrow 09:00 call Ann
    /schedule every day 09:00 give me one word of Italian
    /schedule zone Europe/Berlin
schedule-made = Scheduled. { $entry }
schedule-zone = Your time zone for new entries is { $zone }. To change it: /schedule zone Europe/Berlin
schedule-unknown-zone = There is no time zone “{ $zone }”. Examples: Europe/Berlin, Asia/Tokyo.
schedule-unreadable = I cannot read this time. Nothing is scheduled yet; the model will try, or ask you. Examples: in 10 minutes, tomorrow 09:00, 2026-12-01 09:00, every day 09:00, every monday 18:30, every month 1 09:00. Times are in your time zone (/schedule zone Europe/Berlin).
schedule-in-words = Schedule this. Ask me if the time or its time zone is not clear: { $text }
schedule-past = This time has already passed.
schedule-too-soon = Choose a time that is at least a minute away.
schedule-too-far = Choose a time within the next three years.
schedule-no-text = Add a text after the time: /schedule tomorrow 09:00 call Ann
schedule-too-long = This text is too long: at most { $limit } characters.
schedule-too-many = You already have { $limit } scheduled entries, the maximum. Cancel one first.
schedule-cancelled = Cancelled.
schedule-paused = Paused.
schedule-resumed = Resumed.
schedule-gone = This entry is not yours, or no longer exists.
schedule-is-paused = paused
schedule-late = This was due at { $time }, while I was not running.
schedule-every-day = every day
schedule-every-week = every { $days }
schedule-every-month = every month on day { $day }
schedule-every-hours = { $hours ->
        [one] every hour
       *[other] every { $hours } hours
    }
schedule-prompt =
    I scheduled this message for now. If it is something to remember, remind me of it in a sentence; otherwise answer it:
    { $text }
schedule-reminder =
    I asked for this reminder, and it is due now:
    { $text }
weekday = { $day ->
        [0] Monday
        [1] Tuesday
        [2] Wednesday
        [3] Thursday
        [4] Friday
        [5] Saturday
       *[6] Sunday
    }
button-schedule-cancel = Cancel { $number }
button-schedule-pause = Pause { $number }
button-schedule-resume = Resume { $number }
command-schedule = reminders and scheduled prompts

## Under an answer

sources = Sources:
answered-by = answered by { $provider }
answered-remotely = { $failed } is unavailable right now, so { $provider } answered: an external provider, not the operator’s own machines.
demo-footer = This is the built-in demo, not an AI model. To use a real one, set OPENAI_API_KEY in .env or run Ollama; see README.md.

## Buttons

button-stop = Stop
button-continue = Continue
button-answer-edited = Answer the edit
button-retry = Retry
button-retry-elsewhere = Retry elsewhere
button-picture-file = As a file
button-automatic = Automatic
button-show-footers = Show who answered
button-hide-footers = Hide who answered
button-newer = Newer
button-older = Older
button-open = Continue
button-delete = Delete
button-really-delete = Yes, delete
button-back = Back

## Choosing a model

model-title =
    Which model should answer?
    Current: { $current }
model-automatic = automatic (the first available provider)
model-automatic-set = Set to automatic: the first available provider answers.
model-set = { $model } ({ $provider }) will answer from now on. If it fails, another model takes over.
model-group-admins-only = In a group, only admins can choose the model.
retry-pick = Which provider should try?
footers-shown = Each answer now shows who gave it.
footers-hidden = Answers no longer show who gave them.
model-gone = This list is out of date. Please open /model again.
retry-gone = This answer can no longer be retried.
retry-last-only = Only the latest answer can be retried.
retry-owner-only = Only the person who asked can retry this answer.

## Commands in Telegram's menu

command-new = start a new conversation
command-threads = earlier conversations
command-compact = shorten the memory of a long conversation
command-model = choose a model
command-stop = stop the current answer
command-usage = tokens, answers and cost
command-settings = how answers are shown, language, persona
command-persona = choose how I answer
command-language = choose language
command-budget = your budget for today
command-help = list of commands
command-report = report a message (use in a reply)
command-rules = rules of this group
command-moderation = moderation settings of this group
command-spam = mark a message as spam (use in a reply)
command-ham = mark a message as not spam (use in a reply)
command-warn = warn the author of a message
command-unwarn = remove a warning

## In the console

console-help =
    Type a message and press Enter.

    /new: start a new conversation
    /threads: list earlier conversations; /threads 2 continues one
    /compact: shorten the memory of a long conversation
    /model: list models; /model <provider> [<model>] picks one, /model auto resets the choice; /model footers on shows who answered
    /retry [<provider>]: answer the latest message again, optionally with another provider
    /provider: provider status; /provider help lists the admin actions
    /usage: tokens, answers and cost, today and this month
    /budget: your budget for today
    /privacy: where your messages may be sent
    /persona: list the ways to answer; /persona <name> or your own instructions picks one for this conversation
    /language: choose the language of these messages
    /forget: erase what is stored about you here
console-help-more =
    /compare <question>: ask two models and choose the better answer; /vote a, b or tie
    /image <description>: draw a picture
    /settings: how answers appear and sound
    /stats: people, chats, answers and cost of the whole bot
    /audit: actions of operators and group admins
    /broadcast <text>: write to everyone who has a private chat with the bot; /broadcast send, stop or discard
    /ban_user, /unban_user: block or unblock a person or a chat in Telegram
    /quit: exit

    Ctrl-C stops an answer, Ctrl-D exits.
console-ready = { $provider }: ready ({ $model })
console-model-missing = { $provider }: running, but model { $model } is not installed (ollama pull { $model })
console-demo-stands-in = None of your providers is available, so the built-in demo answers instead.
console-embedded-store = REDIS_URL is not set: provider state is kept in this process only. Conversations are saved to disk.
console-hint = /help lists the commands, Ctrl-C stops an answer, Ctrl-D or /quit exits.
console-asking = asking { $provider } …
console-telegram-only = { $command } works in Telegram only.
console-broadcast-acts = Nothing is sent yet. /broadcast send sends it, /broadcast discard drops it.
console-broadcast-again = This message was drafted in another session. Repeat the command if you mean it.
console-broadcast-started = The Telegram bot that shares this database sends it while it runs. /broadcast shows the progress, /broadcast stop stops it.
console-nothing-to-stop = Nothing is running. Ctrl-C stops an answer.
console-picture-saved = Saved the picture as { $path }
console-picture-unsaved = The picture could not be saved as { $path }: { $reason }
console-did-you-mean = Unknown command. Did you mean { $command }?
console-vote = Which answer is better? Type /vote a, /vote b or /vote tie.
console-failed-over = { $failed } -> { $provider } answered
console-retry = /retry asks again, /retry <provider> asks that provider.
console-model-others = also available: { $models }
console-model-usage = /model <provider> [<model>] picks a model, /model auto resets the choice, /model footers on|off shows or hides who answered.
console-unknown-provider = Unknown provider { $name }. Configured: { $known }.
console-unknown-model = { $provider } has no model { $name }. Available: { $known }.
console-nothing-to-retry = There is nothing to retry yet.
console-storage-failed = Database error: { $reason }

## Privacy

consent-question =
    No local AI model is available right now. May messages in this chat be sent to an external provider? You can change this at any time with /privacy.
consent-granted = Thank you. Messages in this chat may now be sent to external providers. /privacy changes this.
consent-withheld = Messages in this chat stay on the operator’s own machines. /privacy changes this.
consent-admins-only = In a group, only admins can decide this.
button-agree = Allow
button-decline = Keep local
privacy-local-only = Messages in this chat are processed on the operator’s own machines only.
privacy-remote = Messages in this chat may also be sent to external providers: { $providers }.
privacy-granted-by-operator =
    Messages may be sent to these external providers: { $providers }. The operator of this bot made this choice for all chats.
console-privacy-usage = /privacy yes allows external providers, /privacy no keeps messages local.
forget-question =
    Erase everything that I have stored about you? This cannot be undone.

    Erased: your conversations with me, files, notes, settings, usage, and copies of your messages.
    In groups, conversations stay without your name. Budgets of today, warnings and bans stay under a code that cannot be turned back into your name.
    Messages in Telegram itself stay until you delete them.
forget-done = Everything that I had stored about you is erased.
forget-kept = Nothing was erased.
forget-private-only = Please send /forget in a private chat with me. It covers groups, too.
button-forget = Yes, erase everything
button-keep = No, keep it
console-language-usage = /language <tag> sets the language of these messages: { $known }.
console-language-set = Messages are in English now.
console-persona-usage = /persona <name> or your own instructions sets how I answer in this conversation; /persona standard resets it.
console-persona-set = Persona of this conversation: { $name }
console-forget-usage = /forget yes erases your conversations, notes, settings and usage in this console. This cannot be undone.
privacy-none = No external provider is configured. Your messages stay on the operator’s own machines.

## Usage

usage-amount = { $answers ->
        [one] one answer
       *[other] { $answers } answers
    }, { $tokens } tokens, { $cost }
usage-yours-today = You today: { $amount }
usage-yours-month = You this month: { $amount }
usage-chat-today = This chat today: { $amount }
usage-chat-month = This chat this month: { $amount }
usage-estimated = (partly estimated)
usage-no-price = price unknown
usage-partly-priced = { $cost } and { $unpriced ->
        [one] one request
       *[other] { $unpriced } requests
    } of unknown price
usage-days = Days start at midnight { $zone }.

budget-yours = Your budget today: { $spent } used, limit: { $limit }.
budget-chat = This chat today: { $spent } used, limit: { $limit }.
budget-all = All users today: { $spent } used, limit: { $limit }.
budget-provider = { $name } today: { $spent } used, limit: { $limit }.
budget-none = no limit
budget-renewal = Budgets renew at { $time }.
budget-set = Budget of { $name }: { $limit } a day.
budget-usage = /budget user <id> <USD> sets the daily budget of a user, /budget chat <id> <USD> that of a chat; none removes the limit, default returns to the settings.
not-audited = This action is missing from the audit log: the database rejected the entry.

## Conversations

threads-title =
    Your conversations in this chat, newest first; • marks the current one.
    /threads rename <name> renames it.
threads-none = There are no conversations here yet.
thread-unnamed = untitled
thread-card = { $name }
thread-really-delete = Delete “{ $name }” and all its messages? This cannot be undone.
thread-opened = Continuing “{ $name }”.
thread-deleted = Deleted.
thread-gone = This conversation no longer exists.
thread-renamed = Renamed to “{ $name }”.
threads-rename-usage = Add the name after the command: /threads rename Holiday plans
threads-group-admins-only = In a group, only admins can change its conversations.
console-threads-usage = /threads <number> continues a conversation, /threads rename <name> renames the current one (*), /threads delete <number> deletes one.

## Operators

banned = The operator of this bot has blocked you. You will not get answers here.
audit-title = Audit log: { $kind }
audit-kind = { $kind ->
    [providers] providers
    [moderation] moderation
    [settings] settings
    [operation] operation
   *[all] all actions
}
audit-none = No such actions yet.
audit-usage = /audit shows all actions; /audit providers, moderation, settings or operation shows one kind.
audit-local = console
audit-nothing = none
audit-was = { $name } was { $value }
audit-detail-forced = for { $seconds }; before: forced { $forced }, preferred { $preferred }
audit-detail-leaders = before: forced { $forced }, preferred { $preferred }
audit-detail-cooled = for { $seconds }; before: { $state }
audit-detail-state = before: { $state }
audit-detail-tested = ok in { $ms } ms
audit-detail-test-failed = failed: { $failure }
audit-detail-served = { $served } of { $count ->
    [one] { $total } chat
   *[other] { $total } chats
}
audit-detail-budget = { $now }; before: { $before }
audit-detail-incident = incident { $id }
audit-detail-message = message { $id }
audit-detail-config = change { $revision }: { $changes }
audit-detail-limits = { $when ->
    [now] now { $limits }
   *[before] before { $limits }
}
audit-act = { $action ->
    [provider-force] forced
    [provider-clear] cleared the forced and the preferred provider
    [provider-cooldown] cooldown
    [provider-reset] ended the cooldown
    [provider-test] tested
    [dead-replay] queued a dead letter again
    [dead-drop] deleted a dead letter
    [budget-set] set a budget
    [config-save] changed the configuration
    [config-undo] undid a change of the configuration
    [token-create] made the API token
    [token-change] changed the limits of the API token
    [token-revoke] revoked the API token
    [console-link] asked for a sign-in link
    [console-sign_in] signed in to the console
    [user-ban] banned
    [user-unban] lifted the ban
    [broadcast-start] started a broadcast
    [broadcast-stop] stopped a broadcast
    [moderation-mode] set the mode of moderation in
    [moderation-cards] set where cards go in
    [moderation-rules] changed the rules of
    [moderation-undo] undid an incident in
    [moderation-confirm] confirmed an incident in
    [moderation-ban] banned the author of an incident in
    [moderation-spam] marked as spam in
    [moderation-ham] marked as not spam in
    [moderation-warn] warned in
    [moderation-unwarn] removed a warning in
    [provider-undo] undid an act
    [token-undo] undid a change of the limits of the API token
    [console-file] had a file sent in Telegram
    [broadcast-discard] discarded a broadcast
    [moderation-newcomers] changed the rules for newcomers of
    [moderation-raid] switched raid mode in
    [moderation-trust] trusted a member of
    [moderation-untrust] no longer trusts a member of
    [moderation-lock] locked a kind of message in
    [moderation-unlock] unlocked a kind of message in
    [moderation-preset] set the strictness in
    [moderation-language] set the language of
    [moderation-budget] set the daily number of judgements in
    [moderation-reports] set the number of reports for a card in
    [moderation-remote] set whether remote providers judge
    [moderation-rule] changed a rule of
   *[other] { $name }
}
stats-period =
    { $days ->
        [1] Today
       *[other] Last { $days } days
    }
    people: { $people }, chats: { $chats }
    answers: { $answers }, requests: { $requests }, failed: { $failures }
    tokens: { $tokens }, cost: { $cost }
    moderation incidents: { $incidents }
stats-now =
    Total
    private chats: { $private }, groups: { $groups }, conversations: { $threads }
    moderated groups: { $moderated }, bans: { $banned }, dead letters: { $dead }
ban-usage = /ban_user <id> <reason> bans a person or a chat from the bot; in a reply it bans the author. /unban_user <id> lifts a ban. Telegram gives bots no way to look up a @name.
unban-usage = /unban_user <id> lifts a ban; in a reply, that of the author.
ban-none = No one is banned.
ban-done = { $id } is banned: the bot does not answer there any more.
ban-already = { $id } is banned already.
ban-operator = Operators cannot be banned.
ban-erased = erased person
unban-done = The ban of { $id } is lifted.
unban-none = { $id } is not banned.
broadcast-usage = /broadcast <text> writes to everyone who has a private chat with the bot; in a reply it sends that message. The number of people is shown before anything is sent.
broadcast-private-only = /broadcast works in a private chat with the bot only.
broadcast-draft = This message would go to { $total ->
        [one] one person
       *[other] { $total } people
    } who { $total ->
        [one] has
       *[other] have
    } a private chat with the bot. { $total ->
        [0] There is no one to send it to.
       *[other] Send it?
    }
broadcast-running = Sending: { $served } of { $total }. Delivered: { $sent }, bot blocked: { $blocked }, failed: { $failed }.
broadcast-stopped = Stopped at { $served } of { $total }. Delivered: { $sent }, bot blocked: { $blocked }, failed: { $failed }.
broadcast-done = Sent. Delivered: { $sent }, bot blocked: { $blocked }, failed: { $failed }.
broadcast-discarded = Nothing was sent.
broadcast-gone = This broadcast no longer exists.
button-broadcast-send = Send
button-broadcast-discard = Do not send
button-broadcast-stop = Stop
button-broadcast-resume = Continue sending
command-provider = state of the providers
command-stats = figures of the whole bot
command-audit = actions of operators and group admins
command-broadcast = write to everyone
command-ban_user = ban a person from the bot
command-unban_user = lift a ban
command-dead = messages that could not be handled
command-console = the operator’s console

## Comparing models

compare-usage = /compare <question> asks two models and lets you choose the better answer; /compare a/model b/model <question> names them; /compare stats shows the votes.
compare-no-recordings = /compare takes text, pictures and documents, but no recordings. Please write the question.
compare-waiting = { $side } …
compare-question = Which answer is better?
compare-voted = { $winner ->
    [a] You chose A.
    [b] You chose B.
   *[tie] You found both equally good.
}
    A: { $a }
    B: { $b }
compare-not-yours = Only the person who asked can vote, within seven days.
compare-one-named = Name two models, or none: /compare a/model b/model <question>
compare-too-few = There are fewer than two models to compare here.
compare-same = Both sides are { $name }. Choose two different models.
compare-remote = { $name } is an external provider, and messages of this chat stay on the operator’s own machines. /privacy changes this.
compare-unknown = There is no model { $name }. Available there: { $known }
compare-side-failed = This model did not answer.
compare-standings = Votes by model
compare-standing = { $model }
    { $percent }% of comparisons: won { $wins }, lost { $losses }, equal { $ties }
    👍 { $up }, 👎 { $down }
compare-no-votes = There are no votes yet. Vote after /compare <question>; 👍 and 👎 under answers count too.
button-tie = Equally good
command-compare = ask two models side by side

## Moderation: incident cards

moderation-done = Done: { $acts }.
moderation-dry = Dry run: no action taken. Would have: { $acts }.
moderation-look = Please review. No action was taken.
moderation-act-delete = deleted the message
moderation-act-mute = muted the author for 24 hours
moderation-act-ban = banned the author
moderation-act-warn = warned the author
moderation-act-warned = warned the author ({ $count } of 3 in 30 days)
moderation-act-muted = warned the author ({ $count } in 30 days) and muted them for 24 hours
moderation-failed-delete = The message could not be deleted: { $reason }.
moderation-failed-sanction = The author could not be restricted: { $reason }.
moderation-reason-no_right = the bot lacks the admin right
moderation-reason-protected = they are an admin
moderation-reason-failed = Telegram refused
moderation-who = From: { $name } ({ $id })
moderation-why-judge = Reason: { $category }, { $confidence }% confidence ({ $provider })
moderation-why-rule = Reason: a rule of this group ({ $detail })
moderation-why-report = Reason: reported by { $detail } members
moderation-why-admin = Reason: marked as spam by { $detail }
moderation-why-outage = Reason: no AI provider was available; the local score is { $confidence } of 100
moderation-why-refused = Reason: a provider’s content filter rejected the message ({ $detail })
moderation-why-picture = Reason: a picture, { $confidence }% confidence
moderation-why-malformed = Reason: the AI gave no usable verdict on this message
moderation-evidence = Evidence: “{ $evidence }”
moderation-evidence-missing = The model could not quote evidence, so the decision is yours.
moderation-evidence-name = The evidence is in the author’s name, so the decision is yours.
moderation-tally = On this card: { $messages } messages by { $authors } { $authors ->
    [one] member
   *[other] members
 }, { $restricted } restricted. A decision applies to all of them.
moderation-message = Message:
moderation-no-text = The message has no text.
moderation-erased = The message text was erased after 7 days.
moderation-confirmed = Confirmed by { $name }.
moderation-banned = Banned by { $name }.
moderation-undone = Undone by { $name }.
moderation-category-ok = none
moderation-category-job_scam = job scam
moderation-category-crypto_scam = crypto scam
moderation-category-gambling = gambling
moderation-category-adult = adult content
moderation-category-phishing = phishing
moderation-category-channel_promo = promotion
moderation-category-flood = flooding
moderation-category-toxic = insult
moderation-category-threat = threat
moderation-category-off_topic = off topic
moderation-category-injection = attempt to manipulate the moderator
moderation-category-unsure = unclear
button-undo = Undo
button-confirm = Confirm
button-ban = Ban

## Moderation: replies to buttons and commands

moderation-admins-only = Only admins of this group can do this.
rights-unknown = In a group, only admins can do this. Telegram does not say whether you are one, so nothing was done: please try again.
moderation-groups-only = This command works in groups: add the bot to a group as an admin and use it there.
moderation-resolved = Done.
moderation-too-late = This has already been handled.
moderation-card-gone = This card is no longer available.
moderation-off-here = Moderation is off in this group. An admin can turn it on with /moderation on.
moderation-on-dry = Moderation is on in dry-run mode: it only reports what it would do. Use /moderation enforce to let it act.
moderation-on-enforce = Moderation is on and acts on what it finds. /moderation dry switches back to reports only.
moderation-needs-rights = Missing rights: make the bot an admin who can delete messages and ban users.
moderation-switched-off = Moderation is off.
moderation-usage = Usage: /moderation on, off, dry, enforce, stats, cards <here, me or a chat>, budget <number>, reports <number>. /moderation alone shows all settings.
moderation-reply-needed = Use this command in a reply to the message.
moderation-author-exempt = Admins and the group’s own channel are not moderated.
moderation-author-unknown = Telegram does not say whether the author is an admin, so nothing was done. Please try again.
moderation-spam-done = Deleted and learned as spam.
moderation-ham-done = Learned as not spam.
moderation-warned =
    { $name }, please follow the rules of this group. This is warning { $count } of 3 in 30 days.
moderation-warned-muted = { $name }, this was warning { $count } in 30 days. You can write again in 24 hours.
moderation-unwarned = Warning removed, { $count } left.
moderation-no-warning = This member has no warnings.
moderation-report-taken = Thank you, the message is being reviewed.
moderation-report-again = You have already reported this message.
moderation-report-too-many = You have sent too many reports this hour. Please try again later.
moderation-no-right-delete = A message should be deleted, but the bot lacks the right. Please make it an admin who can delete messages.
moderation-no-right-restrict = A member should be restricted, but the bot lacks the right. Please make it an admin who can ban users. Muting works in supergroups only.
moderation-outage = No AI provider can judge messages right now. No one is sanctioned on the local score alone; waiting messages are judged when a provider is back.
moderation-budget-spent = Today’s budget of { $budget } AI judgements is used up. Until midnight UTC only the group’s own rules apply. /moderation budget <number> changes it.
moderation-number-needed = Please give a number from { $least } to { $most }.

## Moderation: settings

moderation-settings =
    Moderation: { $mode }
    Sensitivity: { $preset }
    Language: { $language }
    Automatic bans: { $ban }
    External providers may judge: { $remote }
    Cards go to: { $cards }
    AI judgements per day: { $budget }
    Reports that raise a card: { $reports }
moderation-mode-off = off
moderation-mode-dry = dry run
moderation-mode-enforce = enforcing
moderation-preset-lenient = lenient
moderation-preset-standard = standard
moderation-preset-strict = strict
moderation-yes = yes
moderation-no = no
moderation-none = none
moderation-nothing = nothing
moderation-cards-here = this group
moderation-cards-person = an admin, in a private chat
moderation-cards-chat = the chat { $id }
moderation-cards-no-chat = I cannot write to that chat. Add the bot there and give the chat as @name or id: /moderation cards @our_admins. Anonymous admins can only use /moderation cards here.
moderation-cards-not-admin = You are not an admin of that chat.
moderation-cards-unreachable = The bot cannot write to you in private. Please start a chat with it first.
moderation-cards-hello = Moderation cards of { $group } are now sent to this chat.
button-mode-off = Off
button-mode-dry = Dry run
button-mode-enforce = Enforce
button-preset-lenient = Lenient
button-preset-standard = Standard
button-preset-strict = Strict
button-ban-allowed = Automatic bans
button-remote = External providers
button-cards-here = Cards here
button-cards-me = Cards to me
button-rules = Rules
button-lists = Lists
button-stats = Statistics
button-rule-flood = Flooding
button-rule-duplicates = Duplicates
button-rule-mixed = Mixed alphabets
button-rule-links = Links: { $value }
button-rule-forwards = Forwards: { $value }
button-rule-media = No media from newcomers
moderation-links-all = all
moderation-links-not_from_newcomers = not for newcomers
moderation-links-listed = listed only
moderation-links-none = none
moderation-whom-nobody = allowed
moderation-whom-newcomers = not for newcomers
moderation-whom-everybody = blocked
moderation-rules-none = This group has no written rules.
moderation-rules-card =
    { $words }

    Links: { $links }
    Forwards: { $forwards }
    Banned words: { $banned }
    Allowed domains: { $domains }

    Admins: /rules text <words>, /rules ban <word>, /rules unban <word>, /rules domain <name>, /rules undomain <name>
moderation-rules-for-members =
    Rules of this group:
    { $words }
moderation-rules-saved = Saved.
moderation-rules-usage = Usage: /rules text <words>, /rules ban <word>, /rules unban <word>, /rules domain <name>, /rules undomain <name>.
moderation-stats =
    Last { $days } days:
    messages: { $seen }
    judged: { $judged }
    sent to an AI model: { $asked } ({ $share }%)
    judged late: { $unjudged }
    acted on: { $acted }
    cards only: { $carded }
    undone by admins: { $undone }
    tokens: { $input } in, { $output } out
    cost: { $cost }
moderation-cost = ${ $dollars }
moderation-cost-partly = { $unpriced ->
    [one] ${ $dollars }, plus { $unpriced } request of unknown price
   *[other] ${ $dollars }, plus { $unpriced } requests of unknown price
}

## Moderation: newcomers

moderation-newcomers =
    Newcomers
    Gate: { $gate }
    Raid mode from this many joins a minute: { $rate }
    Last hour of a muted newcomer is deleted: { $cleanup }
    Newcomers’ pictures judged per day: { $pictures }
    Not allowed for newcomers: { $locked }
moderation-newcomers-usage = Usage: /newcomers gate off, button or question; /newcomers raid <joins a minute, 0 for never>; /newcomers cleanup on or off; /newcomers pictures <a day> or off. /newcomers alone shows the settings.
moderation-gate-kind-off = off
moderation-gate-kind-button = a button
moderation-gate-kind-question = a question in private
moderation-gate-notice-button = New here? Press the button, then you can write in this group.
moderation-gate-notice-question = New here? Answer one question in a private chat with me, then you can write in this group.
moderation-gate-ask = To write in the group, answer: how much is { $sum }?
moderation-gate-ask-button = Press the button to enter the group.
moderation-gate-passed = Welcome! You can write in the group now.
moderation-gate-wrong = That is not right. Open the question again in half a minute.
moderation-gate-too_early = Please wait half a minute, then open the question again.
moderation-gate-nothing = There is nothing to do here.
moderation-gate-failed = Telegram did not let you in. Please try again, or write to an admin of the group.
button-gate-pass = I am not a bot
button-gate-question = Answer
moderation-raid =
    Raid mode is on. People who join stay read-only until they pass the gate.
    Joined in the minute before: { $joins }
moderation-raid-dry =
    Dry run: raid mode would be on now. No one is restricted.
    Joined in the minute before: { $joins }
moderation-raid-over = The raid is over. Joined: { $joins }, passed the gate: { $passed }.
moderation-raid-ended = Raid mode is off.
moderation-raid-none = There is no raid.
moderation-raid-usage = Usage: /raid on, /raid off. /newcomers raid <number> sets the joins a minute from which raid mode starts by itself.
button-raid-end = End raid mode
moderation-trusted = { $name } counts as an established member now.
moderation-untrusted = { $name } counts as a newcomer now.
moderation-lock-usage = Usage: /lock <kind>, /unlock <kind>. Kinds: { $kinds }
command-newcomers = gate, raid mode and locks for newcomers
command-raid = start or end raid mode
command-trust = treat a member as established (use in a reply)
command-untrust = treat a member as a newcomer (use in a reply)
command-lock = forbid newcomers a kind of content
command-unlock = allow newcomers a kind of content

## The operator's console in a browser

web-overview = Overview
web-providers = Providers
web-usage = Usage
web-audit = Audit log
web-settings = Settings
web-navigation = Console
web-skip = Skip to content
web-sign-in = Sign in
web-sign-out = Sign out
web-signed-in = Signed in: { $who }
web-sign-in-wrong = That is not the value of WEB_TOKEN.
web-sign-in-unavailable = Redis does not answer, so signing in is not possible now.
web-sign-in-foreign = This form was sent by a page of another site. Open the console’s own address and sign in there.
web-link-refused = This link has been used or has expired. Send /console to the bot for a new one.
web-link-help = The link signs you in once, as the operator who asked the bot for it.
web-app-expired = Telegram's sign-in is older than an hour. Close this window and open the console from the bot again.
web-app-refused = Telegram's sign-in is not valid here, or you are not an operator of this bot.
web-app-opening = Signing in with Telegram…
web-app-token = Sign in with the token
web-connection-lost = Connection lost. Showing data from
web-token = Console token
web-token-help = The value of WEB_TOKEN. Operators can also send /console to the bot for a link.
web-open = Open the console
web-now = Who answers now
web-answers = { $provider } answers
web-beside = { $provider }: { $state }{ $until ->
    [none] {""}
   *[other] , until { $until }
}{ $next ->
    [none] {""}
   *[other] , next try { $next }
}{ $reason ->
    [none] .
   *[other] {" "}({ $reason }).
}
web-beside-more = { $count ->
    [one] One more provider.
   *[other] { $count } more providers.
}
web-order = Order of the next request
web-state-answers = Answers
web-state-stands-by = Stands by
web-state-forced = Forced
web-state-cooling = Cooling down
web-state-probing = Being probed
web-state-half-open = To be probed next
web-state-not-configured = Not configured
web-state-over-cap = Over its cap
web-cause-key = Key refused
web-cause-account = Account empty or blocked
web-cause-model = Model not found
web-cause-settings = Settings refused
web-cause-quota = Over its quota
web-cause-down = Does not answer
web-cause-errors = Rests after errors
web-cause-loading = Loads its model
web-cause-unreadable = Unreadable answers
web-until = until { $at }
web-next-try = next try { $at }
web-state-refused = Needs a fix
web-asked-last = It is asked last until this is fixed.
web-over-cap-help = Today’s spending has reached the daily cap. This provider is passed over until midnight.
web-raise-cap = Raise the cap
web-replace-key = Replace the key
web-mend = Fix
web-why-first = First in your order.
web-why-forced = Forced until { $until }.
web-why-preferred = It took over, and keeps answering for a while.
web-why-instead = Those before it cannot be asked now.
web-median = median { $seconds } s
web-seconds = { $seconds } s
web-all-providers = All { $count } providers
web-first-output = First output
web-latency = median { $median } s, p95 { $p95 } s
web-no-provider = No provider can be asked
web-no-provider-help = Users are told that no provider is available, and can ask again by a button. A provider added here is used at once.
web-redis-gone = Redis does not answer. Each replica decides alone, and a change holds on this replica only until Redis is back.
web-database-unavailable = The database does not answer. Providers are not affected.
web-requests-today = Requests today
web-failed-today = Failed today
web-cost-today = Cost today
web-failovers = Failovers, 24 h
web-failovers-hour = { $count } in the last hour
web-work-now = Work now
web-work-waiting = { $count } waiting
web-unpriced = { $count ->
    [one] 1 request without a known price
   *[other] { $count } requests without a known price
}
web-needs-you = Needs attention
web-needs-nothing = Nothing needs attention
web-is-left-out = { $provider } is left out
web-left-out-more = { $count ->
    [one] One more provider is left out
   *[other] { $count } more providers are left out
}
web-first-lanes = The first { $count } of your order
web-look = Look
web-set-up = Set up
web-use-again = Use again now
web-release = Release
web-force = Force…
web-force-for = For { $time }
web-cool = Cool down
web-edit = Edit
web-add = Add a provider
web-test = Test
web-test-now = Test now
web-test-again = Test again
web-test-help = Asks the server with the values of this form, before anything is saved: its list of models, then requests of a few tokens as chat makes them, and one with a small picture.
web-test-answered = { $model } answers
web-test-took = After { $seconds } s
web-test-failed = { $model } does not answer
web-test-without = Answers without { $feature ->
    [tools] tools
    [system_role] a system role
    [streaming] streaming
   *[other] { $feature }
}
web-back = Back to the providers
web-providers-help = Each request goes to the first provider in this order that is not cooling down; at most { $hops } are tried. Changes reach all replicas within a second.
web-order-overridden = The order in AVAILABLE_PROVIDERS is overridden here. It can be reset in
web-undo-force = Undo the force
web-test-all = Test all
web-drag = Drag to change the order
web-move-keys = Order: drag a card by its grip, or press Alt and the arrow up or down while the focus is in it.
web-position = Position { $number }
web-move-up = Move { $provider } up
web-move-down = Move { $provider } down
web-remote = Remote
web-local = On this machine
web-in-flight = In flight
web-key-from-console = key: console
web-key-from-environment = key: environment
web-key-from-default = key: default
web-connection = Connection
web-id = Name
web-id-help = Letters, digits, - and _. It is shown in chats and logs and cannot be changed later.
web-id-taken = There is a provider { $id } already.
web-form-incomplete = A provider needs a name and at least one model.
web-kind = Kind
web-base-url = Base URL
web-base-url-help = Usually ends in /v1, never in /chat/completions.
web-key = Key
web-key-set = set; leave empty to keep it
web-key-set-at = set { $at }; leave empty to keep it
web-key-help = Encrypted with SECRETS_KEY. It can be replaced, never shown.
web-no-secrets-key = Set SECRETS_KEY to store keys here; until then keys come from the environment.
web-key-again = The key was used for this test and is not sent back. Type it once more before you save.
web-search-models = Part of a model’s name
web-search = Search
web-catalogue = Models of the server
web-show-catalogue = Show the server’s models
web-catalogue-count = { $count ->
    [one] 1 model listed
   *[other] { $count } models listed
}
web-catalogue-help = Ticked models are added when you save, test or search.
web-catalogue-empty = No other model of this name
web-no-catalogue = The server’s models cannot be listed: { $reason }
web-look-for-servers = Look for local servers
web-look-again = Look again
web-local-servers = Servers on this machine
web-local-servers-help = The usual ports of Ollama, LM Studio, llama.cpp, vLLM, LiteLLM, Jan, KoboldCpp, SGLang and others were asked for their models.
web-no-local-servers = None of the usual ports answers with a list of models. If the bot runs in a container, only the container was checked.
web-server-wants-key = Needs a key
web-server-known = configured
web-inspected-server = { $grade ->
    [ok] Server reached
   *[other] Server not reached
}
web-inspected-key = { $grade ->
    [ok] Key accepted
   *[other] Key rejected
}
web-inspected-models = { $grade ->
    [ok] { $count ->
        [one] { $count } model listed, the chosen one
       *[other] { $count } models listed, the chosen ones among them
    }
    [note] The server does not list its models
   *[other] Not in the server’s list: { $model }
}
web-inspected-answer = { $grade ->
    [ok] { $model } answers
   *[other] { $model } does not answer
}
web-inspected-streaming = { $grade ->
    [ok] Streams
   *[other] Does not stream: answers appear at once
}
web-inspected-tools = { $grade ->
    [ok] Accepts tools
   *[other] No tools: chat works without them
}
web-inspected-system_role = { $grade ->
    [ok] Accepts instructions
   *[other] No system role: instructions go into the first message
}
web-inspected-vision = { $grade ->
    [ok] Sees pictures
   *[other] No vision: photos go to the next provider
}
web-where = Where prompts go
web-remote-help = Remote: prompts leave your machines; chats without consent are not sent here
web-models = Models
web-models-help = One a line, the default first
web-limits = Limits
web-cap = Daily cap, USD
web-cap-help = Passed over above it; empty for none.
web-at-once = At once
web-at-once-help = Requests over all replicas; empty for no limit.
web-first-within = First output within, seconds
web-stall = Pause in a stream, seconds
web-within = Plain answer within, seconds
web-retries = Retries after a transient failure
web-save = Save and use
web-discard = Discard
web-remove = Remove
web-remove-question = Remove { $provider }?
web-remove-help = Its key that is stored here is deleted and cannot be brought back. Its usage stays in the records.
web-remove-others = The next requests go to { $providers }.
web-remove-last = It is the only provider: without it, no one gets an answer.
web-remove-confirm = Remove { $provider }
web-keep = Keep it
web-period = Period
web-days = { $days ->
    [one] Today
   *[other] { $days } days
}
web-usage-help = Requests of all replicas; days begin at midnight in { $zone }.
web-last-day = Last 24 hours
web-events = Events
web-no-events = No changes in the last 24 hours
web-day-of = States of { $provider } in the last 24 hours
web-now-short = now
web-span = { $begin } to { $end }: { $state ->
    [answers] answered
    [stands_by] stood by
    [forced] forced
    [cooling] cooling down
    [probing] to be probed
   *[not_configured] not configured
}{ $reason ->
    [none] {""}
   *[other] , { $reason }
}
web-event = { $state ->
    [answers] answers
    [stands_by] is back
    [forced] was forced
    [cooling] cools down
   *[not_configured] lacks a setting
}
web-last-hour = last hour, p95 { $p95 } s
web-changes = Changes of state
web-plot-label = { $title } by provider, up to { $top }
web-nothing-measured = Nothing in this period
web-budgets = Budgets today
web-budget = Budget
web-spent = Spent
web-spent-of = Spent of the budget of { $name }
web-no-limit = no limit
web-all-requests = all requests
web-budget-of = Budget of
web-budget-user = a person
web-budget-chat = a chat
web-telegram-id = Telegram id
web-budget-amount = USD, none or default
web-set-budget = Set
web-budget-invalid = The id is a whole number, and the amount is USD, “none” or “default” (as in the settings).
web-provider = Provider
web-requests = Requests
web-failed = Failed
web-tokens-in = Tokens in
web-tokens-out = Tokens out
web-cost = Cost
web-no-usage = No requests in this period
web-audit-help = Actions of operators, newest first. Entries cannot be changed.
web-audit-kinds = Kind of action
web-pages = Pages
web-act = Act
web-target = Target
web-detail = Detail
web-by = By
web-by-token = WEB_TOKEN
web-when = When
web-no-acts = No acts yet
web-settings-help = This console overrides the environment for providers. Everything else is read at the start.
web-variable = Variable
web-in-effect = In effect
web-source = Source
web-source-console = console
web-source-environment = environment
web-source-default = default
web-is-set = set
web-is-not-set = not set
web-reset = Reset
web-export = Export as .env
web-send-to-me = Send to me in Telegram
web-file-no-telegram = The file can be sent in Telegram only to an operator who signed in there, while the bot runs.
web-file-not-sent = Telegram did not take the file. Open a private chat with the bot and try again.
web-did-file-sent = { $about } is in your private chat with the bot.
web-undo = Undo
web-undo-decision = Undo: lift what the bot did, allow the text
web-undo-late = Something has changed since, so this cannot be undone.
web-undo-busy = This is being undone right now.
web-undo-gone = This was already undone, or more than half an hour has passed.
web-undo-unavailable = Redis does not answer, so this cannot be undone now.
web-moderation = Moderation
web-compare = Compare
web-count-waiting = waiting
web-compare-help = Votes from /compare and thumbs on answers. Only counts are kept, never the questions.
web-compare-leads = { $name } is preferred: { $percent }% of { $count } votes.
web-compare-open = { $count ->
    [one] 1 vote: none is clearly preferred yet.
   *[other] { $count } votes: none is clearly preferred yet.
}
web-compare-none = No votes in this period.
web-compare-wins = Who is preferred
web-compare-interval = The line is the 95% confidence interval. One leads when all of it is right of the middle, 50%.
web-compare-share = Share of votes
web-compare-between = { $percent }%, between { $low }% and { $high }%
web-all-time = All
web-group-by = Group by
web-by-provider = Provider
web-by-model = Model
web-by-purpose = Purpose
web-votes = Votes
web-thumbs = Thumbs up / down
web-pairs = Pairs
web-pairs-help = Fewer than { $count } votes are too few to tell.
web-pair = Pair
web-split = Split
web-split-of = { $wins } of { $count }
web-result = Result
web-against = against
web-ties = { $count ->
    [one] 1 tie
   *[other] { $count } ties
}
web-too-few-votes = Too few votes
web-preferred = { $name } preferred
web-no-difference = No difference shown
web-no-votes = No votes yet
web-no-votes-help = /compare in Telegram asks two models the same question and offers a vote; thumbs under answers count too.
web-judged-today = Judged today
web-judged-of = { $seen ->
    [one] of { $seen } message; { $asked } by a model
   *[other] of { $seen } messages; { $asked } by a model
}
web-acted-today = Acted on today
web-cards-today = { $count ->
    [one] 1 more only reported
   *[other] { $count } more only reported
}
web-undone-month = Undone, 30 days
web-undone-of = { $undone } of { $acted }
web-pending = Waiting for a provider
web-pending-help = judged within 10 minutes of its return
web-groups = Groups
web-groups-moderated = { $moderated } of { $count } moderated
web-groups-first = The { $count } groups with the most messages are shown.
web-group-counts = { $seen ->
    [one] 30 days: { $seen } message, { $acted } acted on
   *[other] 30 days: { $seen } messages, { $acted } acted on
}
web-erred = Where it erred
web-erred-help = undone of acted on, 30 days
web-breakdown = Breakdown
web-share-of-cost = Share of cost
web-total = Total
web-purpose = { $purpose ->
    [chat] Chat
    [moderation] Moderation
    [naming] Names of conversations
    [api] Other programs
    [compare] Comparisons
    [speech] Speech
    [voice] Transcription
    [summary] Summaries of conversations
    [images] Pictures
    [embeddings] Embeddings
    [script] Scripts
   *[other] { $purpose }
}
web-first-output-day = Time to first output
web-first-output-help = Median in seconds by quarter of an hour, last 24 hours
web-dead = Dead letters
web-broadcasts = Broadcasts
web-broadcasts-help = A message to everyone who has a private chat with the bot. Nothing is sent until you have seen the number of chats and confirmed.
web-new-broadcast = New broadcast
web-broadcast-text = Text
web-broadcast-text-help = Plain text, up to 4,096 characters. /broadcast in Telegram keeps formatting.
web-broadcast-count = Count the chats
web-broadcast-invalid = A broadcast has 1 to 4,096 characters.
web-broadcast-draft = not sent
web-broadcast-running = sending
web-broadcast-stopped = stopped
web-broadcast-done = done
web-broadcast-would-go = { $total ->
    [one] This message would go to 1 chat.
   *[other] This message would go to { $total } chats.
}
web-broadcast-served = { $total ->
    [one] { $served } of { $total } chat
   *[other] { $served } of { $total } chats
}
web-broadcast-counts = { $total ->
    [one] { $served } of { $total } chat: { $sent } delivered, { $blocked } blocked the bot, { $failed } failed
   *[other] { $served } of { $total } chats: { $sent } delivered, { $blocked } blocked the bot, { $failed } failed
}
web-broadcast-question = { $total ->
    [one] Send this message to { $total } chat?
   *[other] Send this message to { $total } chats?
}
web-broadcast-question-help = Sending can be stopped. Messages that have arrived cannot be taken back.
web-not-yet = Not yet
web-broadcast-act-send = { $total ->
    [one] Send it to 1 chat
   *[other] Send it to { $total } chats
}
web-broadcast-act-resume = Continue sending
web-broadcast-act-stop = Stop
web-broadcast-act-discard = Discard
web-broadcast-changed = This broadcast has changed in the meantime. Open the page again.
web-no-broadcasts = No broadcasts yet
web-did-broadcast-drafted = The chats are counted. Nothing is sent yet.
web-did-broadcast-send = The broadcast is being sent.
web-did-broadcast-stop = The broadcast is stopped. Messages on their way still arrive.
web-did-broadcast-discard = The broadcast is discarded.
web-tokens = API tokens
web-more = More
web-no-daemon = Telegram does not run in this process
web-no-daemon-help = The bot is still starting, or this process serves other programs only.
web-which-cards = Cards
web-waiting = Waiting
web-decided = Decided
web-moderation-help = Cards of all groups, the newest 50. A text is shown to admins of its group only, and is erased after 7 days.
web-no-cards = No cards
web-card-keys = Keys of a card that has the focus: J next, K previous, C confirm, U undo.
web-cards-wait = { $count ->
    [one] 1 moderation card waits
   *[other] { $count } moderation cards wait
}
web-sign-in-as-person = You signed in with WEB_TOKEN. To read and decide cards, open the console from the bot, so that Telegram can confirm in which groups you are an admin.
web-not-admin-there = You are not an admin of this group, so its text is not shown.
web-dry-run = dry run
web-group = group { $id }
web-nothing-done = Nothing was done
web-dead-help = Messages that could not be processed. Their text is not shown.
web-no-letters = No dead letters: all messages were handled
web-letter-private = From a private chat
web-letter-group = From a group
web-letter-other = Other work
web-letters-wait = { $count ->
    [one] 1 dead letter
   *[other] { $count } dead letters
}
web-letter-gone = This letter is gone: it was retried or discarded in the meantime.
web-letters-many = { $count } or more dead letters
web-cards-many = { $count } or more moderation cards wait
web-letters-newest = The newest { $count } are shown; older ones follow when these are done.
web-retry-these = Retry these { $count }
web-retry = Retry
web-retry-all = Retry all
web-drop = Discard
web-drop-question = Discard dead letter { $id }?
web-drop-help = The message is deleted without an answer. This cannot be undone.
web-tokens-help = For programs that use /v1. A token opens that and nothing else; without limits of its own it has those of a person.
web-no-tokens = No tokens yet
web-new-token = New token
web-make-token = Create token
web-token-made = Token { $name } created
web-token-once = Copy it now: it is not stored and will not be shown again.
web-token-name-help = Letters, digits, - _ and a full stop, at most 32. It appears in usage and in the audit log.
web-token-name-invalid = A name has letters, digits, - _ and full stops, at most 32, and begins with a letter or a digit.
web-token-exists = There is a token of this name already.
web-token-limits-invalid = A limit is a number that is not negative, and a model is written as provider/model.
web-token-budget = Budget a day, USD
web-token-empty = Empty: as for a person.
web-token-rate = Requests a minute
web-token-running = Requests at once
web-token-zero = Empty: as for a person. 0: no limit.
web-token-consent = Prompts may leave your machines
web-token-consent-default = as for a person
web-token-consent-yes = to remote providers
web-token-consent-no = this machine only
web-token-models = Models
web-token-models-help = Patterns of provider/model, such as ollama/*; empty for all.
web-revoke = Revoke
web-revoke-question = Revoke { $name }?
web-revoke-help = The program that uses it gets 401 from now on, on all replicas within a second. The token cannot be brought back.
web-did-decided = Card { $about } is decided.
web-did-let-through = Card { $about } is undone: what the bot did is lifted, and its text is allowed from now on.
web-did-retried = Dead letter { $about } is queued again.
web-did-retried-all = The dead letters are queued again.
web-did-dropped = Dead letter { $about } is discarded.
web-did-token-changed = The limits of { $about } are changed.
web-did-token-revoked = { $about } is revoked.
web-did-budget-set = The budget of { $about } is set.
web-did-forced = { $about } is forced.
web-did-released = Providers are asked in their order again.
web-did-cooled = { $about } cools down.
web-did-reset = { $about } is used again.
web-did-moved = { $about } was moved to place { $place } in your order.
web-did-saved = { $about } is saved and in use.
web-did-removed = { $about } is removed.
web-did-reset-setting = { $about } has the value of the environment again.
web-did-undone = The change is undone.
web-not-found = This page does not exist, or no longer does.
web-conflict = Another operator changed the configuration meanwhile. Open the page again and repeat your change.
web-foreign-form = This form does not belong to your session. Open the page again.

## Settings, language, persona

language-name = English
settings-title = Settings of this chat. Tap a setting to change it.
settings-title-group = Settings of this group. Admins can tap a setting to change it.
settings-group-admins-only = In a group, only admins can change its settings.
settings-stream = Answers appear: { $value }
settings-stream-edit = as they are written
settings-stream-draft = as a draft
settings-stream-off = when they are complete
settings-footers = Who answered: { $value }
settings-footers-0 = hidden
settings-footers-1 = shown
settings-voice = Spoken answers: { $value }
settings-voice-never = never
settings-voice-to_voice = to voice messages
settings-voice-always = always
settings-language = Language: { $value }
settings-persona = Persona: { $value }
language-title = Which language should I use with you? It applies in every chat with me. My answers follow the language of your messages.
language-title-group = Which language should I use in this group? My answers follow the language of the messages.
language-automatic = As in Telegram
language-set = I will write in English from now on.
persona-title-thread =
    How should I answer in this conversation? Current: { $current }
    /persona TEXT gives me your own instructions; a new conversation begins without them.
persona-title-persona = How should I answer in new conversations of this chat? Current: { $current }
persona-standard = Standard
persona-own = your own instructions
persona-own-set = I will follow your instructions in this conversation. /persona shows the others.
persona-brief-name = Brief
persona-brief-about = Brief: the answer in a sentence or two
persona-brief-instructions =
    Answer in one or two short sentences. Begin with the answer itself, without a greeting, a repetition of the question or a closing offer. Use a list only if the answer is one, and give details only when you are asked for them. If a short answer would be wrong, add the one condition that makes it right.
persona-teacher-name = Teacher
persona-teacher-about = Teacher: explains step by step, with examples and questions
persona-teacher-instructions =
    You are a patient teacher. Find out what the person knows already, then build on it. Explain one idea at a time in plain words, each with a small example from everyday life, and name the technical term once the idea is clear. With exercises and homework give a hint and the next step rather than the finished solution, unless the person asks for it. End with one short question that shows whether the point was understood.
persona-editor-name = Editor
persona-editor-about = Editor: corrects and improves your texts
persona-editor-instructions =
    You are an experienced editor. Treat every message as a text to improve, unless it is clearly a question or an instruction. Return the improved text first, in its own language: correct spelling, grammar and punctuation, shorten what is long, and keep the author's meaning, tone and facts. Do not add thoughts of your own. Then list the changes that matter in a few words each. Ask if a sentence can be understood in two ways.
persona-translator-name = Translator
persona-translator-about = Translator: translates everything you write
persona-translator-instructions =
    You are a professional translator. Translate every message and send the translation alone. If no target language was agreed, translate into English, and English texts into the language of the user's settings or of the conversation so far. Render sense and tone rather than single words, keep names, numbers, formatting and code, and replace idioms by ones that a native speaker would use. Where a word has several meanings, choose by the context and add one line with the alternative.
persona-programmer-name = Programmer
persona-programmer-about = Programmer: working code with short reasons
persona-programmer-instructions =
    You are a senior software engineer. Answer with code that runs: complete, in a code block with its language, for current versions, without placeholders. Before it say in one sentence what it does, after it only what is not obvious: limits, costs, risks. Prefer the standard library and simple solutions. With an error, name its cause before the correction. Say when something depends on a version or is untested, and point out security problems unasked.
persona-critic-name = Critic
persona-critic-about = Critic: looks for the weak points of your ideas
persona-critic-instructions =
    You are a fair and demanding critic. Say first in one sentence what is good about the idea or the text. Then name its weakest points, the most important first: what is unproven, what was left out, who would disagree and why, what happens if an assumption is wrong. Give a reason for each and, where you can, how to find out or how to mend it. Do not flatter and do not mock. End with the one question whose answer would decide most.

## Operators: providers, dead letters, notices

unit-s = { $number }s
unit-m = { $number }m
unit-h = { $number }h
operator-until = until { $time } ({ $left } left)
operator-requests = { $count ->
    [one] 1 request
   *[other] { $count } requests
 }, { $failures } failed
operator-no-price = no price known
operator-partly-priced = { $cost } and { $unpriced } without a known price
operator-and = { $first } and { $last }
operator-none = none
operator-nothing = nothing.
operator-works-without = works without { $refused }
operator-window = its window is { $tokens } tokens
operator-max-input = takes at most about { $tokens } tokens
operator-trial = { $model } answered in { $time } ms: { $found }
operator-asked-without = { $model } is asked without { $capability }: { $refusal }
tested-streaming = stream
tested-no-streaming = no stream
tested-tools = tools
tested-no-tools = no tools
tested-system_role = system message
tested-no-system_role = no system message
without-settings = a length limit of the answer and other settings
without-streaming = a stream
without-tools = tools
without-tool_choice = a choice of the tool
without-system_role = a system message (it goes into the first message of the user)
without-images = images
without-structured_output = structured output
without-opus = sound in OGG/Opus (it is sent as MP3)
without-web_search = a search of its own
operator-no-provider = No provider is listed in AVAILABLE_PROVIDERS.
operator-redis-gone = Redis does not answer: this replica uses its own state, and the others see its changes only once Redis is back.
operator-database-gone = The database does not answer: requests are counted since this process started, and costs are unknown.
operator-title = Providers by priority; today ({ $zone }) covers all replicas, other counts cover this process.
operator-title-process = Providers by priority; counts cover this process.
operator-capability-voice = Transcription:
operator-capability-speech = Speech:
operator-capability-images = Pictures:
operator-capability-embeddings = Embeddings:
operator-models = models: { $models }
operator-today = today: { $counted }, { $cost }
operator-in-flight = in flight: { $count }
operator-in-flight-limit = in flight: { $count }, limit over all replicas: { $limit }
operator-first-output = first output: { $latency }
operator-latency-once = { $seconds } s (once)
operator-latency = median { $median } s, 95% within { $slowest } s
operator-last-error = last error: { $error }
operator-it-said = it said: "{ $words }"
operator-rests = { $model } rests { $until }: { $reason }
operator-state-healthy = healthy
operator-state-preferred = preferred
operator-state-forced = forced
operator-state-cooling = cooling down
operator-state-probing = being probed
operator-state-half-open = half-open, to be probed next
operator-state-not-configured = not configured
operator-provider-usage = Usage: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]; durations are 90s, 10m, 2h, a plain number is minutes (without one: force { $force }, cooldown { $cooldown }). Providers: { $known }.
operator-no-duration = Not a duration from 1s to 168h.
operator-not-configured = { $provider } is not configured: { $reason }.
operator-no-such-provider = There is no such provider.
operator-forced = { $provider } is asked first { $until }. If it fails, the others follow.
operator-cleared = Cleared the forced and the preferred provider: the order of AVAILABLE_PROVIDERS applies. Cooldowns stay.
operator-cools = { $provider } cools down { $until }: the others are asked before it.
operator-cools-forced = { $provider } cools down, but it is forced { $until } and asked first until then.
operator-reset = { $provider } is reset: no cooldown, back to its place in AVAILABLE_PROVIDERS.
operator-fails = { $provider } does not work: { $model }: { $reason }, after { $time } ms.
operator-key-hint = {" "}(the key, the account or the model's name)
operator-works = { $provider } works: { $trial }; { $key }.
operator-key-unset = no key is set
operator-key-accepted = the key is accepted
operator-still-cools = It still cools down { $until }; /provider reset { $provider } ends that.
operator-all-today = All users today, by provider:
operator-all-month = All users this month, by provider:
operator-tokens =
    { $input ->
        [one] { $input } token in
       *[other] { $input } tokens in
    }, { $output } out
operator-estimated = ({ $count } estimated)
operator-act-force = force
operator-act-test = test
operator-act-cooldown = cooldown
operator-act-reset = reset
operator-act-clear = clear
operator-act-refresh = refresh
operator-act-replay = replay
operator-act-drop = drop
dead-usage = Usage: /dead [replay <number> | drop <number>]
dead-none = There are no dead letters: all messages were handled.
dead-title = Dead letters, newest first. Each failed for good, or could not be read.
dead-none-such = There is no dead letter { $number }.
dead-replayed = Dead letter { $number } is queued again. If it fails once more, it returns to this list.
dead-dropped = Dead letter { $number } is deleted.
notice-it-said = It said: "{ $words }".
notice-misconfigured = { $provider } does not accept its key, account or model: { $reason }.
notice-misconfigured-help = It cools down for 30 minutes at a time. After a correction (a changed environment needs a restart), /provider reset { $provider } brings it back.
notice-given-up = A message could not be handled and is among the dead letters: { $reason }. /dead shows them.
notice-inbox-failed = I have to stop: { $reason }. Messages are kept, and will be answered once this is fixed and I am running again.
notice-no-provider = No AI provider answers. { $reasons }. /provider shows more.
notice-again = { $provider } answers again; requests are served.
notice-leader-back = { $after } answers again, in place of { $before }.
notice-leader-failed = { $before } failed ({ $reason }). { $after } answers now. /provider shows more.
console-off = The console is off. Set WEB_PORT and WEB_TOKEN (and WEB_PUBLIC_URL if it is reached from other machines), then restart.
console-not-here = The link signs you in, so I send it only in a private chat: send /console there.
console-unavailable = Redis does not answer, so signing in is not possible now. Please try again in a minute.
console-link =
    Open the console (this link works once, for { $left }):
    { $link }
console-open-here = Open here
