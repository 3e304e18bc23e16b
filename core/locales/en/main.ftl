# Plain text without Markdown. A test holds every language to the same keys and variables.

## Meeting

start =
    Hello, { $name }! Write to me and I answer.
    If the model I think with falls silent, another takes over, so just keep talking.

    /new starts afresh, /model picks a model, /help tells the rest.
help =
    Write a message and I answer. In a group, mention me, reply to me or use /ask.

    /new: a fresh conversation
    /threads: earlier conversations, to go on in, rename or delete
    /model: choose who answers
    /stop: stop the answer that is being written
    /usage: tokens, answers and cost, today and this month
    /privacy: where your messages may go
    /help: this text

    Under an answer, Retry asks again and Retry elsewhere asks another provider.
new-done = Done. I start with a clean slate; what shall we talk about?
unknown-command = I do not know that command. /help shows what I can do.
not-allowed = Sorry, I only talk to people and groups on my list. Please ask whoever runs me.

## While an answer is made

ask-usage = Put your question behind the command: /ask why is the sky blue?
nothing-asked = Yes? Put your question next to my name, and I answer.
queue-full = You are faster than I am: too many messages are waiting here already. Please send this one again in a moment.
stopping = Stopping.
stopped = Stopped.
nothing-to-stop = Nothing to stop: I am not writing anything right now.
interrupted = The answer broke off here.
shutting-down = I am being restarted, so the answer ends here. Please try again in a minute.
handed-back = I am being restarted. This answer goes on in a moment, by itself.

## What went wrong

failed-all-providers = Nobody answers me right now, sorry. Please try again in a moment.
failed-refused = The provider declined to answer this: { $reason }
failed-rejected = The provider could not make sense of this request. Putting it another way, or /new, may help.
failed-too-long = This conversation has grown too long for every model I have. Please start afresh with /new.
failed-limit = That would take me more steps than I may take for one answer. Could you ask for less at once?
empty-answer = There is nothing to say to that, it seems.
failed-unexpected = Something went wrong on my side, sorry. It has been noted; please try again.
failed-storage = I cannot reach my memory just now, so this did not work. Please try again in a moment.
failed-storage-footer = This answer could not be saved just now, so I may not remember it.
degraded-memory-footer = I could not read our earlier conversation just now.

## What came with a message

unsupported-media = I cannot make anything of this kind of message yet. I understand text, pictures and text files.
cannot-see-image = The model that answered cannot see pictures, so I went by the text alone.
cannot-hear-audio = I cannot listen to voice messages and audio yet. Please write it to me instead.
file-not-fetched = I could not fetch that file from Telegram just now. Could you send it again?
file-too-large = That file is too large for me. Could you send a smaller one?

## Under an answer

answered-by = answered by { $provider }
demo-footer = This is the built-in demo, not a model. To talk to a real one, set for example OPENAI_API_KEY in .env, or run Ollama; README.md shows how.

## Buttons

button-stop = Stop
button-retry = Retry
button-retry-elsewhere = Retry elsewhere
button-automatic = Automatic
button-show-footers = Say who answered
button-hide-footers = Do not say who answered
button-newer = Newer
button-older = Older
button-open = Go on with it
button-delete = Delete
button-really-delete = Yes, delete it
button-back = Back

## Choosing a model

model-title =
    Who shall answer you?
    Now: { $current }
model-automatic = automatic, the first provider that works
model-automatic-set = From now on the choice is automatic: the first provider that works answers you.
model-set = From now on { $model } of { $provider } answers you. If it fails, another one steps in.
model-group-admins-only = In a group, only its admins choose the model.
retry-pick = Who shall try?
footers-shown = From now on each answer says who gave it.
footers-hidden = From now on answers do not say who gave them.
model-gone = That list is out of date. Please open /model again.
retry-gone = I can no longer try that one again.
retry-last-only = Only the latest answer can be tried again.

## Commands in Telegram's menu

command-new = a fresh conversation
command-threads = earlier conversations
command-model = choose who answers
command-stop = stop the answer
command-usage = tokens, answers and cost
command-help = what I can do
command-report = report a message, in reply to it
command-rules = the rules of this group
command-moderation = how this group is moderated
command-spam = that message is spam
command-ham = that message is no spam
command-warn = warn who wrote that message
command-unwarn = take a warning back

## In the console

console-help =
    Write a line and I answer.

    /new: a fresh conversation
    /threads: earlier conversations; /threads 2 goes on in one
    /model: who may answer; /model <provider> [<model>] picks one, /model auto leaves it to me again; /model footers on says under each answer who gave it
    /retry [<provider>]: answer the latest message again, by that provider if you name one
    /provider: how the providers are doing; /provider help tells what can be done with them
    /usage: tokens, answers and cost, today and this month
    /privacy: where your messages may go
    /quit: leave

    Ctrl-C stops an answer, Ctrl-D leaves.
console-ready = { $provider }: ready ({ $model })
console-model-missing = { $provider }: answers, but has no model { $model } yet (ollama pull { $model })
console-demo-stands-in = None of your providers can answer right now, so the built-in demo stands in for them.
console-embedded-store = REDIS_URL is not set: what is known of the providers stays in this process. Conversations are saved.
console-hint = /help lists the commands, Ctrl-C stops an answer, Ctrl-D or /quit leaves.
console-failed-over = { $failed } -> { $provider } answered
console-model-others = it also has { $models }
console-model-usage = /model <provider> [<model>] picks one, /model auto leaves it to me again, /model footers on or off says who answered or does not.
console-unknown-provider = I know no provider { $name }. There are: { $known }.
console-unknown-model = { $provider } has no model { $name }. It has: { $known }.
console-nothing-to-retry = There is nothing to try again yet.
console-storage-failed = The database did not play along: { $reason }

## Privacy

consent-question =
    Nobody on our own machines can answer right now. May I pass your messages in this chat on to an outside provider? You can take that back at any time with /privacy.
consent-granted = Thank you. Messages in this chat may go to outside providers; /privacy takes that back.
consent-withheld = All right: messages in this chat stay on our own machines. /privacy changes that.
consent-admins-only = In a group, only its admins decide this.
button-agree = Agree
button-decline = Keep it here
privacy-local-only = Messages in this chat are answered on our own machines only.
privacy-remote = Messages in this chat may also go to outside providers: { $providers }.
privacy-granted-by-operator =
    Messages may go to these outside providers: { $providers }. Whoever runs this bot decided that for everybody.
console-privacy-usage = /privacy yes lets them go to outside providers, /privacy no keeps them here.
privacy-none = No outside provider is set up: what you write stays on the machines of whoever runs this bot.

## Usage

usage-amount = { $answers ->
        [one] one answer
       *[other] { $answers } answers
    }, { $tokens } tokens, { $cost }
usage-yours-today = You today: { $amount }
usage-yours-month = You this month: { $amount }
usage-chat-today = This chat today: { $amount }
usage-chat-month = This chat this month: { $amount }
usage-estimated = (some of it estimated)
usage-no-price = no price known
usage-partly-priced = { $cost } and { $unpriced ->
        [one] one request
       *[other] { $unpriced } requests
    } without a known price
usage-days = A day begins at midnight UTC.

## Conversations

threads-title =
    Your conversations here, the newest first; • is the current one.
    /threads rename <name> gives that another name.
threads-none = There is no conversation here yet.
thread-unnamed = without a name
thread-card = { $name }
thread-really-delete = Delete “{ $name }” with everything that was said in it? That cannot be undone.
thread-opened = We go on with “{ $name }”.
thread-deleted = Deleted.
thread-gone = That conversation is not there any more.
thread-renamed = This conversation is called “{ $name }” now.
threads-rename-usage = Put the name behind it: /threads rename Holiday plans
threads-group-admins-only = In a group, only its admins change its conversations.
console-threads-usage = /threads <number> goes on in one, /threads rename <name> renames the current one (*), /threads delete <number> deletes one.
## Moderation: what a card says

moderation-done = Done: { $acts }.
moderation-dry = Dry run, so I did nothing. I would have: { $acts }.
moderation-look = Please have a look. I did nothing about it.
moderation-act-delete = deleted the message
moderation-act-mute = muted them for 24 hours
moderation-act-ban = banned them
moderation-act-warn = warned them
moderation-act-warned = warned them ({ $count } of 3 in 30 days)
moderation-act-muted = warned them ({ $count } in 30 days) and muted them for 24 hours
moderation-failed-delete = I could not delete it: { $reason }.
moderation-failed-sanction = I could not restrict them: { $reason }.
moderation-reason-no_right = I lack the right to
moderation-reason-protected = they are an admin
moderation-reason-failed = Telegram refused
moderation-who = From: { $name } ({ $id })
moderation-why-judge = Why: { $category }, { $confidence }% sure ({ $provider })
moderation-why-rule = Why: a rule of this group ({ $detail })
moderation-why-report = Why: { $detail } members reported it
moderation-why-admin = Why: { $detail } called it spam
moderation-why-outage = Why: no provider could judge it; my own score is { $confidence } of 100
moderation-why-refused = Why: the content filter of a provider would not look at it ({ $detail })
moderation-evidence = It says: “{ $evidence }”
moderation-evidence-missing = Whoever judged it could not show where it says that, so it is yours to judge.
moderation-evidence-name = It is about the name, so it is yours to judge.
moderation-message = The message:
moderation-no-text = It has no text.
moderation-erased = What it said has been erased: that happens after 7 days.
moderation-confirmed = Confirmed by { $name }.
moderation-banned = Banned by { $name }.
moderation-undone = Undone by { $name }.
moderation-category-ok = nothing
moderation-category-job_scam = a job scam
moderation-category-crypto_scam = a crypto scam
moderation-category-gambling = gambling
moderation-category-adult = adult content
moderation-category-phishing = phishing
moderation-category-channel_promo = promotion
moderation-category-flood = flooding
moderation-category-toxic = an insult
moderation-category-threat = a threat
moderation-category-off_topic = off topic
moderation-category-injection = an attempt to give orders to the moderator
moderation-category-unsure = unclear
button-undo = Undo
button-confirm = Confirm
button-ban = Ban

## Moderation: answers to buttons and commands

moderation-admins-only = Only admins of this group may do that.
moderation-groups-only = That works in groups: add me to one as an admin, and say it there.
moderation-resolved = Done.
moderation-too-late = That was done already.
moderation-card-gone = I know nothing of that any more.
moderation-off-here = Moderation is off in this group. An admin switches it on with /moderation on.
moderation-on-dry = Moderation is on, as a dry run: I do nothing and tell what I would do. When you like what you see, say /moderation enforce.
moderation-on-enforce = Moderation is on, and I act on what I find. /moderation dry makes me only tell what I would do.
moderation-needs-rights = What I still need: make me an admin who can delete messages and ban users.
moderation-switched-off = Moderation is off.
moderation-usage = I understand /moderation on, off, dry, enforce, stats, budget <number>, reports <number>, and /moderation alone for all settings.
moderation-reply-needed = Say that in reply to the message that you mean.
moderation-author-exempt = Admins and the group’s own channel are not moderated.
moderation-spam-done = Deleted and remembered.
moderation-ham-done = Remembered: that is no spam.
moderation-warned =
    { $name }, please stay friendly. That is warning { $count } of 3 in 30 days.
moderation-warned-muted = { $name }, that was warning { $count } in 30 days. You can write again in 24 hours.
moderation-unwarned = Warning taken back, { $count } left.
moderation-no-warning = They have no warning.
moderation-report-taken = Thank you, I am looking at it.
moderation-report-again = You have reported that one already.
moderation-report-too-many = You have reported a lot within an hour. Please give it a rest.
moderation-no-right-delete = I found something to delete and may not: please make me an admin who can delete messages.
moderation-no-right-restrict = I found somebody to restrict and may not: please make me an admin who can ban users. Muting works in supergroups only.
moderation-outage = No provider can judge messages right now. I punish nobody on my own; what waits is judged as soon as one is back.
moderation-budget-spent = The { $budget } judgements of today are used up. Until midnight (UTC) only the group’s own rules work. /moderation budget <number> changes that.
moderation-number-needed = I need a number from { $least } to { $most } there.

## Moderation: settings

moderation-settings =
    Moderation of this group: { $mode }
    Sensitivity: { $preset }
    Language: { $language }
    I may ban by myself: { $ban }
    Outside providers may judge: { $remote }
    Cards go to: { $cards }
    Judgements a day: { $budget }
    Reports for a card: { $reports }
moderation-mode-off = off
moderation-mode-dry = dry run
moderation-mode-enforce = acting
moderation-preset-lenient = lenient
moderation-preset-standard = standard
moderation-preset-strict = strict
moderation-yes = yes
moderation-no = no
moderation-cards-here = this group
moderation-cards-person = an admin, in private
moderation-cards-unreachable = I cannot write to you in private. Please start a chat with me first.
moderation-cards-hello = The moderation cards of { $group } come here from now on.
button-mode-off = Off
button-mode-dry = Dry run
button-mode-enforce = Act
button-preset-lenient = Lenient
button-preset-standard = Standard
button-preset-strict = Strict
button-ban-allowed = Ban by itself
button-remote = Outside providers
button-cards-here = Cards here
button-cards-me = Cards to me
button-rules = Rules
button-rule-flood = Floods
button-rule-duplicates = Repetition
button-rule-mixed = Mixed alphabets
button-rule-links = Links: { $value }
button-rule-forwards = Forwards: { $value }
button-rule-media = No media for newcomers
moderation-links-all = all
moderation-links-not_from_newcomers = not new
moderation-links-listed = listed
moderation-links-none = none
moderation-whom-nobody = free
moderation-whom-newcomers = not new
moderation-whom-everybody = none
moderation-rules-none = This group has set no rules in words.
moderation-rules-card =
    { $words }

    Links: { $links }
    Forwards: { $forwards }
    Forbidden words: { $banned }
    Domains that are always welcome: { $domains }

    Admins: /rules text <words>, /rules ban <word>, /rules unban <word>, /rules domain <name>, /rules undomain <name>
moderation-rules-for-members =
    The rules of this group:
    { $words }
moderation-rules-saved = Saved.
moderation-rules-usage = I understand /rules text <words>, /rules ban <word>, /rules unban <word>, /rules domain <name>, /rules undomain <name>.
moderation-stats =
    The last { $days } days:
    messages seen: { $seen }
    judged: { $judged }
    asked a model: { $asked } ({ $share }%)
    could not be judged at first: { $unjudged }
    acted on: { $acted }
    cards only: { $carded }
    undone by admins: { $undone }
    tokens: { $input } in, { $output } out
    cost: { $cost }
moderation-cost = ${ $dollars }
moderation-cost-partly = ${ $dollars }, and { $unpriced } requests whose price I do not know
