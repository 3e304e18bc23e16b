# Обычный текст без разметки. Тест следит, чтобы ключи и переменные во всех языках совпадали.

## Первое сообщение

start =
    Здравствуйте, { $name }! Напишите сообщение, чтобы начать.
    Если один ИИ-провайдер перестанет отвечать, ответит другой, так что просто продолжайте разговор.

    /new начинает новый разговор, /model выбирает модель, /help показывает остальные команды.
help =
    Напишите сообщение, и я отвечу. В группе упомяните меня, ответьте на моё сообщение или используйте /ask.

    /new: начать новый разговор
    /threads: продолжить, переименовать или удалить прежние разговоры
    /compact: сократить память о длинном разговоре
    /model: выбрать модель
    /schedule: напоминания и запросы по расписанию
    /compare: спросить две модели и выбрать лучший ответ
    /image: нарисовать картинку, если это настроено
    /stop: остановить текущий ответ
    /usage: токены, ответы и стоимость за сегодня и за месяц
    /budget: ваш бюджет на сегодня
    /settings: показ ответов, язык, роль
    /persona: выбрать, как мне отвечать в этом разговоре
    /language: выбрать язык моих сообщений
    /privacy: куда могут отправляться ваши сообщения
    /forget: стереть всё, что я о вас храню
    /help: этот список

    Кнопки под ответом: «Повторить» спрашивает ещё раз, «Повторить у другого» обращается к другому провайдеру.
help-operators =
    Для операторов:
    /provider: состояние провайдеров и действия с ними
    /stats: люди, чаты, ответы и стоимость по всему боту
    /audit: действия операторов и админов групп
    /broadcast: написать всем, у кого есть личный чат с ботом
    /ban_user, /unban_user: кому бот не отвечает
    /budget user или chat: дневные бюджеты
    /dead: сообщения, которые не удалось обработать
    /console: консоль в браузере
new-done = Начат новый разговор. О чём поговорим?
unknown-command = Неизвестная команда. Список команд: /help.
press-invalid = Эта кнопка недействительна.
not-allowed = Этот бот доступен только выбранным пользователям и группам. Обратитесь за доступом к его владельцу.

## Во время ответа

ask-usage = Напишите вопрос после команды: /ask почему небо голубое?
guest-waiting = Минуту, я пишу ответ.
nothing-asked = Напишите вопрос вместе с упоминанием, и я отвечу.
rate-limited = Вы пишете слишком быстро. Продолжите через { $seconds } с: более ранние сообщения я не прочитаю.
queue-full = В этом чате ждёт ответа слишком много сообщений. Отправьте это сообщение ещё раз чуть позже.
stopping = Останавливаюсь.
stopped = Остановлено.
nothing-to-stop = Сейчас нет ответа, который можно остановить.
interrupted = Ответ прервался.
shutting-down = Бот перезапускается, поэтому ответ на этом заканчивается. Попробуйте ещё раз через минуту.
handed-back = Бот перезапускается. Ответ продолжится через мгновение.

## Ошибки

failed-all-providers = Сейчас недоступны все ИИ-провайдеры. Попробуйте ещё раз через минуту.
failed-refused = Провайдер отказался отвечать: { $reason }
failed-rejected = Провайдеры отклонили этот запрос. Сформулируйте его иначе.
failed-too-long = Это сообщение слишком длинное для всех доступных моделей. Сократите его или отправьте по частям.
failed-limit = На этот запрос нужно больше шагов, чем допускается для одного ответа. Попробуйте разбить его на части.
failed-budget-user = Ваш бюджет на сегодня исчерпан. Он обновится в { $time }.
failed-budget-chat = Бюджет этого чата на сегодня исчерпан. Он обновится в { $time }.
failed-budget-all = Сегодняшний бюджет бота исчерпан. Он обновится в { $time }.
memory-compacted = Разговор стал длинным: его начало я буду помнить в виде краткого пересказа. Целиком он хранится в /threads.
compact-done = Начало этого разговора сохранено в виде краткого пересказа. Я его помню, а ответы станут дешевле.
compact-nothing = Пересказывать пока нечего.
compact-failed = Сейчас ни один ИИ-провайдер не смог пересказать этот разговор, поэтому ничего не изменилось. Попробуйте позже.
answer-cut = Ответ обрезан: достигнут предел длины.
continue-prompt = Твой ответ обрезан: достигнут предел длины. Продолжи ровно с того места, где он закончился, ничего не повторяя.
empty-answer = Модель вернула пустой ответ.
answer-waiting = Готовлю ответ…
activity-search = Ищу в интернете: { $query }
activity-page = Читаю страницу: { $site }
activity-tool = Работаю с { $name }
answer-goes-on = Ответ получается длинным и придёт файлом.
answer-as-file = Ответ целиком
answer-too-long = Остаток ответа сюда не поместился.
failed-unexpected = На нашей стороне произошла ошибка. Она записана в журнал. Попробуйте ещё раз.
failed-storage = База данных сейчас недоступна. Попробуйте ещё раз чуть позже.
failed-storage-footer = Этот ответ пока не удалось сохранить, поэтому потом я могу его не вспомнить.
degraded-memory-footer = Прежний разговор не удалось загрузить, этот ответ его не учитывает.

## Вложения

unsupported-media = Такие сообщения пока не поддерживаются. Отправьте текст, картинку, запись или документ.
cannot-see-image = Ответившая модель не видит картинок; ответ основан только на тексте.
cannot-hear-audio = Голосовые сообщения и аудио в этом боте не настроены. Отправьте, пожалуйста, текст.
audio-too-long = Запись слишком длинная: я могу прослушать не больше { $minutes } минут.
audio-broken = Не удалось прочитать звук из этого файла: он повреждён или в неизвестном формате.
audio-silent = В этом файле нет звука.
failed-transcription = Сейчас не удалось расшифровать голосовое сообщение. Попробуйте ещё раз через минуту.
failed-heard-nothing = В этой записи ничего не слышно.
file-not-fetched = Не удалось загрузить файл из Telegram. Отправьте его ещё раз.
file-too-large = Файл слишком большой. Отправьте файл поменьше.
image-usage = Опишите картинку после команды: /image лиса на снегу
image-cannot-edit = Изменить картинку нельзя, только нарисовать новую. Опишите её целиком: /image лиса на снегу
images-not-set-up = Рисование в этом боте не настроено.
picture-gone = Эта картинка больше не хранится.
document-encrypted = Этот документ защищён паролем. Снимите защиту и отправьте его ещё раз.
document-broken = Документ повреждён, прочитать его не удалось.
document-empty = В этом документе нет текста. Если его страницы — изображения, отправьте их картинками.
document-mislabelled = Содержимое файла не соответствует его имени, поэтому он не прочитан.
text-encoding = Не удалось определить кодировку этого файла. Сохраните его в UTF-8 и отправьте ещё раз.
document-too-much = Документ требует больше памяти или времени, чем допустимо, поэтому он не прочитан.
document-by-part = { $name } — большой документ: прочитана часть 1 из { $parts }, в остальные я загляну, если спросите.
document-cut = Прочитаны только первые { $characters } знаков файла { $name }.

## Инструменты, которые действуют

call-question = Разрешить? { $what }
call-allowed = Разрешено.
call-denied = Отклонено.
call-gone = Эта кнопка больше не действует. Спросите ещё раз.
call-owner-only = Решает только тот, кто задал вопрос.
call-prompt-allowed = Я разрешаю: { $what }
call-prompt-denied = Я не разрешаю: { $what }
button-allow-once = Один раз
button-allow-always = Всегда для меня
button-deny = Отклонить

## Расписание

schedule-title = Ваши напоминания и запланированные запросы в этом чате:
schedule-none =
    Здесь ничего не запланировано. Скажите своими словами или напишите:
    /schedule через 10 минут достать пирог
    /schedule завтра 09:00 позвонить Ане
    /schedule каждый день 09:00 назови одно итальянское слово
    /schedule zone Europe/Moscow
schedule-made = Запланировано. { $entry }
schedule-zone = Время новых записей указано по часовому поясу { $zone }. Изменить: /schedule zone Europe/Moscow
schedule-unknown-zone = Часового пояса «{ $zone }» нет. Примеры: Europe/Moscow, Asia/Tokyo.
schedule-unreadable = Не удалось понять время. Пока ничего не запланировано; модель попробует сама или переспросит. Примеры: через 10 минут, завтра 09:00, 2026-12-01 09:00, каждый день 09:00, каждый понедельник 18:30, каждый месяц 1 09:00. Время — в вашем часовом поясе (/schedule zone Europe/Moscow).
schedule-in-words = Запланируй это. Если время или часовой пояс неясны, переспроси: { $text }
schedule-past = Это время уже прошло.
schedule-too-soon = Выберите время не раньше чем через минуту.
schedule-too-far = Выберите время в пределах трёх лет.
schedule-no-text = Добавьте текст после времени: /schedule завтра 09:00 позвонить Ане
schedule-too-long = Текст слишком длинный: не больше { $limit } символов.
schedule-too-many = Запланировано записей: { $limit }, больше нельзя. Сначала отмените одну из них.
schedule-cancelled = Отменено.
schedule-paused = Приостановлено.
schedule-resumed = Снова действует.
schedule-gone = Эта запись не ваша или уже выполнена.
schedule-is-paused = приостановлено
schedule-late = Это было запланировано на { $time }, но бот тогда не работал.
schedule-every-day = каждый день
schedule-every-week = еженедельно: { $days }
schedule-every-month = каждый месяц, день { $day }
schedule-every-hours = { $hours ->
        [1] каждый час
        [one] каждый { $hours } час
        [few] каждые { $hours } часа
       *[other] каждые { $hours } часов
    }
schedule-prompt =
    Я запланировал это сообщение на сейчас. Если это напоминание, напомни мне об этом одной фразой, иначе ответь на него:
    { $text }
schedule-reminder =
    Напоминание, о котором я просил:
    { $text }
weekday = { $day ->
        [0] понедельник
        [1] вторник
        [2] среда
        [3] четверг
        [4] пятница
        [5] суббота
       *[6] воскресенье
    }
button-schedule-cancel = Отменить { $number }
button-schedule-pause = Приостановить { $number }
button-schedule-resume = Возобновить { $number }
command-schedule = напоминания и запросы по расписанию

## Под ответом

sources = Источники:
answered-by = ответ от { $provider }
answered-remotely = { $failed } сейчас недоступен, поэтому ответил { $provider }: это внешний провайдер, а не сервер владельца бота.
demo-footer = Это встроенная демонстрация, а не ИИ-модель. Чтобы подключить настоящую, задайте OPENAI_API_KEY в .env или запустите Ollama; подробности в README.md.

## Кнопки

button-stop = Остановить
button-continue = Продолжить
button-answer-edited = Ответить на правку
button-retry = Повторить
button-retry-elsewhere = Повторить у другого
button-picture-file = Файлом
button-automatic = Автоматически
button-show-footers = Показывать, кто ответил
button-hide-footers = Скрывать, кто ответил
button-newer = Новее
button-older = Старше
button-open = Продолжить
button-delete = Удалить
button-really-delete = Да, удалить
button-back = Назад

## Выбор модели

model-title =
    Какая модель должна отвечать?
    Сейчас: { $current }
model-automatic = автоматически (первый доступный провайдер)
model-automatic-set = Выбор автоматический: отвечает первый доступный провайдер.
model-set = Теперь отвечает { $model } ({ $provider }). При сбое её заменит другая модель.
model-group-admins-only = В группе модель могут выбирать только администраторы.
retry-pick = Какой провайдер должен попробовать?
footers-shown = Теперь под каждым ответом указано, кто его дал.
footers-hidden = Теперь под ответами не указано, кто их дал.
model-gone = Этот список устарел. Откройте /model ещё раз.
retry-gone = Этот ответ уже нельзя повторить.
retry-last-only = Повторить можно только последний ответ.
retry-owner-only = Повторить этот ответ может только тот, кто задал вопрос.

## Команды в меню Telegram

command-new = начать новый разговор
command-threads = прежние разговоры
command-compact = сократить память о длинном разговоре
command-model = выбрать модель
command-stop = остановить текущий ответ
command-usage = токены, ответы и стоимость
command-settings = показ ответов, язык, роль
command-persona = выбрать, как мне отвечать
command-language = выбрать язык
command-budget = ваш бюджет на сегодня
command-help = список команд
command-report = пожаловаться на сообщение (в ответ на него)
command-rules = правила этой группы
command-moderation = настройки модерации этой группы
command-spam = отметить сообщение как спам (в ответ на него)
command-ham = отметить сообщение как не спам (в ответ на него)
command-warn = предупредить автора сообщения
command-unwarn = снять предупреждение

## В консоли

console-help =
    Введите сообщение и нажмите Enter.

    /new: начать новый разговор
    /threads: список прежних разговоров; /threads 2 продолжает один из них
    /compact: сократить память о длинном разговоре
    /model: список моделей; /model <провайдер> [<модель>] выбирает модель, /model auto сбрасывает выбор; /model footers on показывает, кто ответил
    /retry [<провайдер>]: ответить на последнее сообщение ещё раз, при желании у другого провайдера
    /provider: состояние провайдеров; /provider help перечисляет действия администратора
    /usage: токены, ответы и стоимость за сегодня и за месяц
    /budget: ваш бюджет на сегодня
    /privacy: куда могут отправляться ваши сообщения
    /persona: список ролей; /persona <имя> или собственные указания выбирают роль для этого разговора
    /language: выбрать язык этих сообщений
    /forget: стереть то, что здесь о вас хранится
console-help-more =
    /compare <вопрос>: спросить две модели и выбрать лучший ответ; /vote a, b или tie
    /image <описание>: нарисовать картинку
    /settings: как выглядят и звучат ответы
    /stats: люди, чаты, ответы и стоимость по всему боту
    /audit: действия операторов и админов групп
    /broadcast <текст>: написать всем, у кого есть личный чат с ботом; /broadcast send, stop или discard
    /ban_user, /unban_user: кому бот не отвечает в Telegram
    /quit: выйти

    Ctrl-C останавливает ответ, Ctrl-D завершает работу.
console-ready = { $provider }: готов ({ $model })
console-model-missing = { $provider }: работает, но модель { $model } не установлена (ollama pull { $model })
console-demo-stands-in = Ни один из ваших провайдеров не доступен, поэтому отвечает встроенная демонстрация.
console-embedded-store = REDIS_URL не задан: состояние провайдеров хранится только в этом процессе. Разговоры сохраняются на диск.
console-hint = /help показывает команды, Ctrl-C останавливает ответ, Ctrl-D или /quit завершает работу.
console-asking = спрашиваю { $provider } …
console-telegram-only = { $command } работает только в Telegram.
console-broadcast-acts = Пока ничего не отправлено. /broadcast send — отправить, /broadcast discard — отказаться.
console-broadcast-again = Это сообщение создано в другом сеансе. Если речь о нём, повторите команду.
console-broadcast-started = Рассылку отправит Telegram-бот с той же базой данных, когда он запущен. /broadcast покажет ход рассылки, /broadcast stop остановит её.
console-nothing-to-stop = Сейчас ничего не выполняется. Ctrl-C прерывает ответ.
console-picture-saved = Картинка сохранена: { $path }
console-picture-unsaved = Не удалось сохранить картинку { $path }: { $reason }
console-did-you-mean = Неизвестная команда. Может быть, { $command }?
console-vote = Какой ответ лучше? Введите /vote a, /vote b или /vote tie.
console-failed-over = { $failed } -> ответил { $provider }
console-retry = /retry спрашивает ещё раз, /retry <провайдер> — у этого провайдера.
console-model-others = также доступны: { $models }
console-model-usage = /model <провайдер> [<модель>] выбирает модель, /model auto сбрасывает выбор, /model footers on|off показывает или скрывает, кто ответил.
console-unknown-provider = Неизвестный провайдер { $name }. Настроены: { $known }.
console-unknown-model = У { $provider } нет модели { $name }. Доступны: { $known }.
console-nothing-to-retry = Повторять пока нечего.
console-storage-failed = Ошибка базы данных: { $reason }

## Приватность

consent-question =
    Локальные ИИ-модели сейчас недоступны. Можно ли отправлять сообщения этого чата внешнему провайдеру? Изменить решение можно в любой момент: /privacy.
consent-granted = Спасибо. Сообщения этого чата теперь могут отправляться внешним провайдерам. Изменить: /privacy.
consent-withheld = Сообщения этого чата остаются на серверах владельца бота. Изменить: /privacy.
consent-admins-only = В группе это могут решать только администраторы.
button-agree = Разрешить
button-decline = Только локально
privacy-local-only = Сообщения этого чата обрабатываются только на серверах владельца бота.
privacy-remote = Сообщения этого чата могут также отправляться внешним провайдерам: { $providers }.
privacy-granted-by-operator =
    Сообщения могут отправляться внешним провайдерам: { $providers }. Так для всех чатов решил владелец бота.
console-privacy-usage = /privacy yes разрешает внешних провайдеров, /privacy no оставляет сообщения локально.
forget-question =
    Стереть всё, что я о вас храню? Отменить это нельзя.

    Будут стёрты: ваши разговоры со мной, файлы, заметки, настройки, расходы и копии ваших сообщений.
    В группах разговоры останутся без вашего имени. Сегодняшний расход, предупреждения и блокировки останутся под кодом, по которому имя не восстановить.
    Сообщения в самом Telegram останутся, пока вы их не удалите.
forget-done = Всё, что я о вас хранил, стёрто.
forget-kept = Ничего не стёрто.
forget-private-only = Отправьте /forget в личном чате со мной. Это касается и групп.
button-forget = Да, стереть всё
button-keep = Нет, оставить
console-language-usage = /language <код> задаёт язык этих сообщений: { $known }.
console-language-set = Теперь сообщения на русском.
console-persona-usage = /persona <имя> или собственные указания выбирают роль для этого разговора, /persona standard — обычную.
console-persona-set = Роль в этом разговоре: { $name }
console-forget-usage = /forget yes стирает ваши разговоры, заметки, настройки и расходы в этой консоли. Отменить это нельзя.
privacy-none = Внешние провайдеры не настроены. Ваши сообщения остаются на серверах владельца бота.

## Расход

usage-amount = { $answers ->
        [one] { $answers } ответ
        [few] { $answers } ответа
       *[many] { $answers } ответов
    }, токенов: { $tokens }, { $cost }
usage-yours-today = Вы сегодня: { $amount }
usage-yours-month = Вы в этом месяце: { $amount }
usage-chat-today = Этот чат сегодня: { $amount }
usage-chat-month = Этот чат в этом месяце: { $amount }
usage-estimated = (частично оценка)
usage-no-price = цена неизвестна
usage-partly-priced = { $cost } и { $unpriced ->
        [one] { $unpriced } запрос
        [few] { $unpriced } запроса
       *[many] { $unpriced } запросов
    } с неизвестной ценой
usage-days = День начинается в полночь ({ $zone }).

budget-yours = Ваш бюджет на сегодня: израсходовано { $spent }, лимит: { $limit }.
budget-chat = Этот чат сегодня: израсходовано { $spent }, лимит: { $limit }.
budget-all = Все пользователи сегодня: израсходовано { $spent }, лимит: { $limit }.
budget-provider = { $name } сегодня: израсходовано { $spent }, лимит: { $limit }.
budget-none = без ограничения
budget-renewal = Бюджеты обновляются в { $time }.
budget-set = Бюджет ({ $name }): { $limit } в день.
budget-usage = /budget user <id> <USD> задаёт дневной бюджет пользователя, /budget chat <id> <USD> — чата; none снимает ограничение, default возвращает значение из настроек.
not-audited = Это действие не попало в журнал: база данных отклонила запись.

## Разговоры

threads-title =
    Ваши разговоры в этом чате, сначала новые; • отмечает текущий.
    /threads rename <название> переименовывает его.
threads-none = Здесь ещё нет разговоров.
thread-unnamed = без названия
thread-card = { $name }
thread-really-delete = Удалить «{ $name }» и все его сообщения? Это нельзя отменить.
thread-opened = Продолжаем «{ $name }».
thread-deleted = Удалено.
thread-gone = Этого разговора больше нет.
thread-renamed = Переименовано в «{ $name }».
threads-rename-usage = Напишите название после команды: /threads rename Планы на отпуск
threads-group-admins-only = В группе менять разговоры могут только администраторы.
console-threads-usage = /threads <номер> продолжает разговор, /threads rename <название> переименовывает текущий (*), /threads delete <номер> удаляет.

## Операторы

banned = Оператор этого бота вас заблокировал. Ответов здесь не будет.
audit-title = Журнал действий: { $kind }
audit-kind = { $kind ->
    [providers] провайдеры
    [moderation] модерация
    [settings] настройки
    [operation] работа бота
   *[all] все действия
}
audit-none = Таких действий пока нет.
audit-usage = /audit показывает все действия; /audit providers, moderation, settings или operation — один вид.
audit-local = консоль
audit-nothing = нет
audit-was = { $name }: было { $value }
audit-detail-forced = на { $seconds }; до этого: назначен — { $forced }, предпочтён — { $preferred }
audit-detail-leaders = до этого: назначен — { $forced }, предпочтён — { $preferred }
audit-detail-cooled = на { $seconds }; до этого: { $state }
audit-detail-state = до этого: { $state }
audit-detail-tested = ответил за { $ms } мс
audit-detail-test-failed = не ответил: { $failure }
audit-detail-served = { $served } из { $count ->
    [one] { $total } чата
   *[other] { $total } чатов
}
audit-detail-budget = { $now }; до этого: { $before }
audit-detail-incident = случай { $id }
audit-detail-message = сообщение { $id }
audit-detail-config = изменение { $revision }: { $changes }
audit-detail-limits = { $when ->
    [now] теперь { $limits }
   *[before] до этого { $limits }
}
audit-act = { $action ->
    [provider-force] первым назначен
    [provider-clear] снят назначенный и предпочтённый провайдер
    [provider-cooldown] пауза
    [provider-reset] пауза снята
    [provider-test] проверен
    [dead-replay] сообщение снова в очереди
    [dead-drop] сообщение удалено
    [budget-set] задан бюджет
    [config-save] изменены настройки
    [config-undo] отменено изменение настроек
    [token-create] создан токен API
    [token-change] изменены лимиты токена API
    [token-revoke] отозван токен API
    [console-link] запрошена ссылка для входа
    [console-sign_in] вход в консоль
    [user-ban] заблокирован
    [user-unban] разблокирован
    [broadcast-start] начата рассылка
    [broadcast-stop] остановлена рассылка
    [moderation-mode] режим модерации в
    [moderation-cards] куда приходят карточки в
    [moderation-rules] изменены правила в
    [moderation-undo] отменено решение в
    [moderation-confirm] подтверждено решение в
    [moderation-ban] заблокирован автор в
    [moderation-spam] отмечен спам в
    [moderation-ham] отмечено как не спам в
    [moderation-warn] предупреждение в
    [moderation-unwarn] снято предупреждение в
    [provider-undo] отменено действие
    [token-undo] отменено изменение лимитов токена API
    [console-file] файл отправлен в Telegram
    [broadcast-discard] удалена рассылка
    [moderation-newcomers] изменены правила для новичков в
    [moderation-raid] переключён режим рейда в
    [moderation-trust] доверие участнику в
    [moderation-untrust] снято доверие участнику в
    [moderation-lock] запрещён вид сообщений в
    [moderation-unlock] разрешён вид сообщений в
    [moderation-preset] задана строгость в
    [moderation-language] задан язык в
    [moderation-budget] задано число проверок в день в
    [moderation-reports] задано число жалоб для карточки в
    [moderation-remote] задано, проверяют ли сообщения удалённые провайдеры, в
    [moderation-rule] изменено правило в
   *[other] { $name }
}
stats-period =
    { $days ->
        [1] Сегодня
        [one] Последний { $days } день
        [few] Последние { $days } дня
       *[other] Последние { $days } дней
    }
    людей: { $people }, чатов: { $chats }
    ответов: { $answers }, запросов: { $requests }, неудачных: { $failures }
    токенов: { $tokens }, стоимость: { $cost }
    случаев модерации: { $incidents }
stats-now =
    Всего
    личных чатов: { $private }, групп: { $groups }, разговоров: { $threads }
    групп с модерацией: { $moderated }, блокировок: { $banned }, необработанных сообщений: { $dead }
ban-usage = /ban_user <id> <причина> блокирует человека или чат; ответом на сообщение — его автора. /unban_user <id> снимает блокировку. Найти человека по @имени Telegram ботам не позволяет.
unban-usage = /unban_user <id> снимает блокировку; ответом на сообщение — с его автора.
ban-none = Никто не заблокирован.
ban-done = { $id }: заблокировано, бот там больше не отвечает.
ban-already = { $id }: уже заблокировано.
ban-operator = Операторов заблокировать нельзя.
ban-erased = данные удалены
unban-done = { $id }: блокировка снята.
unban-none = { $id }: блокировки нет.
broadcast-usage = /broadcast <текст> пишет всем, у кого есть личный чат с ботом; ответом на сообщение — отправляет это сообщение. До отправки бот покажет, сколько человек его получит.
broadcast-private-only = /broadcast работает только в личном чате с ботом.
broadcast-draft = Сообщение { $total ->
        [one] получит { $total } человек, у которого
        [few] получат { $total } человека, у которых
       *[other] получат { $total } человек, у которых
    } есть личный чат с ботом. { $total ->
        [0] Отправлять некому.
       *[other] Отправить?
    }
broadcast-running = Отправляется: { $served } из { $total }. Доставлено: { $sent }, заблокировали бота: { $blocked }, не удалось: { $failed }.
broadcast-stopped = Остановлено на { $served } из { $total }. Доставлено: { $sent }, заблокировали бота: { $blocked }, не удалось: { $failed }.
broadcast-done = Отправлено. Доставлено: { $sent }, заблокировали бота: { $blocked }, не удалось: { $failed }.
broadcast-discarded = Ничего не отправлено.
broadcast-gone = Этой рассылки больше нет.
button-broadcast-send = Отправить
button-broadcast-discard = Не отправлять
button-broadcast-stop = Остановить
button-broadcast-resume = Продолжить отправку
command-provider = состояние провайдеров
command-stats = цифры по всему боту
command-audit = действия операторов и админов групп
command-broadcast = написать всем
command-ban_user = заблокировать человека
command-unban_user = снять блокировку
command-dead = необработанные сообщения
command-console = консоль оператора

## Сравнение моделей

compare-usage = /compare <вопрос> спрашивает две модели, и вы выбираете лучший ответ; /compare a/модель b/модель <вопрос> называет их; /compare stats показывает голоса.
compare-no-recordings = /compare принимает текст, картинки и документы, но не записи. Напишите вопрос текстом.
compare-waiting = { $side } …
compare-question = Какой ответ лучше?
compare-voted = { $winner ->
    [a] Вы выбрали A.
    [b] Вы выбрали B.
   *[tie] Оба ответа одинаково хороши.
}
    A: { $a }
    B: { $b }
compare-not-yours = Голосовать может только тот, кто задал вопрос, в течение семи дней.
compare-one-named = Назовите две модели или ни одной: /compare a/модель b/модель <вопрос>
compare-too-few = Здесь нет двух моделей для сравнения.
compare-same = С обеих сторон { $name }. Выберите две разные модели.
compare-remote = { $name } — внешний провайдер, а сообщения этого чата остаются на серверах владельца бота. Изменить это: /privacy.
compare-unknown = Модели { $name } нет. Там доступны: { $known }
compare-side-failed = Эта модель не ответила.
compare-standings = Голоса по моделям
compare-standing = { $model }
    { $percent }% сравнений: побед { $wins }, поражений { $losses }, вничью { $ties }
    👍 { $up }, 👎 { $down }
compare-no-votes = Голосов пока нет. /compare <вопрос> попросит выбрать лучший ответ; 👍 и 👎 под ответом тоже считаются.
button-tie = Одинаково хороши
command-compare = спросить две модели сразу

## Модерация: карточки

moderation-done = Сделано: { $acts }.
moderation-dry = Пробный режим: действий не было. Было бы: { $acts }.
moderation-look = Проверьте, пожалуйста. Действий не было.
moderation-act-delete = сообщение удалено
moderation-act-mute = автору запрещено писать 24 часа
moderation-act-ban = автор заблокирован
moderation-act-warn = автор предупреждён
moderation-act-warned = автор предупреждён ({ $count } из 3 за 30 дней)
moderation-act-muted = автор предупреждён ({ $count } за 30 дней), ему запрещено писать 24 часа
moderation-failed-delete = Не удалось удалить сообщение: { $reason }.
moderation-failed-sanction = Не удалось ограничить автора: { $reason }.
moderation-reason-no_right = у бота нет такого права
moderation-reason-protected = это администратор
moderation-reason-failed = Telegram отказал
moderation-who = От: { $name } ({ $id })
moderation-why-judge = Причина: { $category }, уверенность { $confidence }% ({ $provider })
moderation-why-rule = Причина: правило этой группы ({ $detail })
moderation-why-report = Причина: жалобы участников: { $detail }
moderation-why-admin = Причина: { $detail } отметил это как спам
moderation-why-outage = Причина: ИИ-провайдеры были недоступны; локальная оценка { $confidence } из 100
moderation-why-refused = Причина: фильтр провайдера отклонил сообщение ({ $detail })
moderation-why-picture = Причина: картинка, уверенность { $confidence }%
moderation-why-malformed = Причина: ИИ не дал понятного ответа об этом сообщении
moderation-evidence = Цитата: «{ $evidence }»
moderation-evidence-missing = Модель не смогла привести цитату, поэтому решать вам.
moderation-evidence-name = Причина в имени автора, поэтому решать вам.
moderation-tally = На этой карточке: сообщений — { $messages }, авторов — { $authors }, ограничено — { $restricted }. Решение относится ко всем.
moderation-message = Сообщение:
moderation-no-text = В сообщении нет текста.
moderation-erased = Текст сообщения удалён: он хранится 7 дней.
moderation-confirmed = Подтверждено: { $name }.
moderation-banned = Заблокировано: { $name }.
moderation-undone = Отменено: { $name }.
moderation-category-ok = нет
moderation-category-job_scam = мошенничество с работой
moderation-category-crypto_scam = криптомошенничество
moderation-category-gambling = азартные игры
moderation-category-adult = материалы для взрослых
moderation-category-phishing = фишинг
moderation-category-channel_promo = реклама
moderation-category-flood = флуд
moderation-category-toxic = оскорбление
moderation-category-threat = угроза
moderation-category-off_topic = не по теме
moderation-category-injection = попытка управлять модератором
moderation-category-unsure = не определено
button-undo = Отменить
button-confirm = Подтвердить
button-ban = Заблокировать

## Модерация: ответы на кнопки и команды

moderation-admins-only = Это могут делать только администраторы группы.
rights-unknown = В группе это могут делать только администраторы. Telegram не сообщает, администратор ли вы, поэтому ничего не сделано: попробуйте ещё раз.
moderation-groups-only = Эта команда работает в группах: добавьте бота в группу администратором и используйте её там.
moderation-resolved = Готово.
moderation-too-late = Это уже обработано.
moderation-card-gone = Эта карточка больше не доступна.
moderation-off-here = Модерация в этой группе выключена. Администратор может включить её: /moderation on.
moderation-on-dry = Модерация включена в пробном режиме: она только сообщает, что сделала бы. /moderation enforce разрешает действовать.
moderation-on-enforce = Модерация включена и действует. /moderation dry возвращает режим «только сообщать».
moderation-needs-rights = Не хватает прав: сделайте бота администратором с правом удалять сообщения и блокировать.
moderation-switched-off = Модерация выключена.
moderation-usage = Команды: /moderation on, off, dry, enforce, stats, cards <here, me или чат>, budget <число>, reports <число>. Просто /moderation показывает все настройки.
moderation-reply-needed = Используйте эту команду в ответ на сообщение.
moderation-author-exempt = Администраторы и канал самой группы не модерируются.
moderation-author-unknown = Telegram не сообщает, администратор ли автор, поэтому ничего не сделано. Попробуйте ещё раз.
moderation-spam-done = Удалено и запомнено как спам.
moderation-ham-done = Запомнено как не спам.
moderation-warned =
    { $name }, соблюдайте, пожалуйста, правила группы. Это предупреждение { $count } из 3 за 30 дней.
moderation-warned-muted = { $name }, это предупреждение { $count } за 30 дней. Писать снова можно через 24 часа.
moderation-unwarned = Предупреждение снято, осталось: { $count }.
moderation-no-warning = У этого участника нет предупреждений.
moderation-report-taken = Спасибо, сообщение проверяется.
moderation-report-again = Вы уже пожаловались на это сообщение.
moderation-report-too-many = За этот час слишком много жалоб. Попробуйте позже.
moderation-no-right-delete = Нужно удалить сообщение, но у бота нет такого права. Сделайте его администратором с правом удалять сообщения.
moderation-no-right-restrict = Нужно ограничить участника, но у бота нет такого права. Сделайте его администратором с правом блокировать. Запрет писать работает только в супергруппах.
moderation-outage = ИИ-провайдеры сейчас не могут оценивать сообщения. По одной локальной оценке никто не наказывается; ждущие сообщения будут оценены, когда провайдер вернётся.
moderation-budget-spent = ИИ-оценки на сегодня ({ $budget }) израсходованы. До полуночи UTC действуют только правила группы. Изменить: /moderation budget <число>.
moderation-number-needed = Укажите число от { $least } до { $most }.

## Модерация: настройки

moderation-settings =
    Модерация: { $mode }
    Чувствительность: { $preset }
    Язык: { $language }
    Автоматическая блокировка: { $ban }
    Оценка внешними провайдерами: { $remote }
    Карточки получает: { $cards }
    ИИ-оценок в день: { $budget }
    Жалоб для карточки: { $reports }
moderation-mode-off = выключена
moderation-mode-dry = пробный режим
moderation-mode-enforce = действует
moderation-preset-lenient = мягкая
moderation-preset-standard = обычная
moderation-preset-strict = строгая
moderation-yes = да
moderation-no = нет
moderation-none = нет
moderation-nothing = ничего
moderation-cards-here = эта группа
moderation-cards-person = администратор, в личном чате
moderation-cards-chat = чат { $id }
moderation-cards-no-chat = Не могу писать в этот чат. Добавьте туда бота и укажите чат как @имя или id: /moderation cards @our_admins. Анонимным админам доступно только /moderation cards here.
moderation-cards-not-admin = Вы не админ этого чата.
moderation-cards-unreachable = Бот не может написать вам лично. Сначала начните чат с ним.
moderation-cards-hello = Карточки модерации группы { $group } теперь приходят в этот чат.
button-mode-off = Выкл
button-mode-dry = Проба
button-mode-enforce = Действие
button-preset-lenient = Мягко
button-preset-standard = Обычно
button-preset-strict = Строго
button-ban-allowed = Автоблокировка
button-remote = Внешние провайдеры
button-cards-here = Карточки сюда
button-cards-me = Карточки мне
button-rules = Правила
button-lists = Списки
button-stats = Статистика
button-rule-flood = Флуд
button-rule-duplicates = Повторы
button-rule-mixed = Смесь алфавитов
button-rule-links = Ссылки: { $value }
button-rule-forwards = Пересылка: { $value }
button-rule-media = Новичкам без медиа
moderation-links-all = все
moderation-links-not_from_newcomers = не новичкам
moderation-links-listed = по списку
moderation-links-none = никому
moderation-whom-nobody = можно
moderation-whom-newcomers = не новичкам
moderation-whom-everybody = никому
moderation-rules-none = У этой группы нет письменных правил.
moderation-rules-card =
    { $words }

    Ссылки: { $links }
    Пересылка: { $forwards }
    Запрещённые слова: { $banned }
    Разрешённые домены: { $domains }

    Администраторам: /rules text <слова>, /rules ban <слово>, /rules unban <слово>, /rules domain <имя>, /rules undomain <имя>
moderation-rules-for-members =
    Правила этой группы:
    { $words }
moderation-rules-saved = Сохранено.
moderation-rules-usage = Команды: /rules text <слова>, /rules ban <слово>, /rules unban <слово>, /rules domain <имя>, /rules undomain <имя>.
moderation-stats =
    За последние дни ({ $days }):
    сообщений: { $seen }
    оценено: { $judged }
    отправлено ИИ-модели: { $asked } ({ $share }%)
    оценено с задержкой: { $unjudged }
    приняты меры: { $acted }
    только карточки: { $carded }
    отменено администраторами: { $undone }
    токенов: { $input } на входе, { $output } на выходе
    стоимость: { $cost }
moderation-cost = ${ $dollars }
moderation-cost-partly = ${ $dollars }, и ещё запросы с неизвестной ценой: { $unpriced }

## Moderation: newcomers

moderation-newcomers =
    Новички
    Вход: { $gate }
    Режим набега включается при вступлениях в минуту: { $rate }
    Удалять последний час новичка, которому запрещено писать: { $cleanup }
    Картинок новичков проверяется в день: { $pictures }
    Запрещено новичкам: { $locked }
moderation-newcomers-usage = Как пользоваться: /newcomers gate off, button или question; /newcomers raid <вступлений в минуту, 0 — никогда>; /newcomers cleanup on или off; /newcomers pictures <в день> или off. Просто /newcomers показывает настройки.
moderation-gate-kind-off = свободный
moderation-gate-kind-button = по кнопке
moderation-gate-kind-question = по вопросу в личном чате
moderation-gate-notice-button = Вы здесь впервые? Нажмите кнопку, и сможете писать в группе.
moderation-gate-notice-question = Вы здесь впервые? Ответьте на один вопрос в личном чате со мной, и сможете писать в группе.
moderation-gate-ask = Чтобы писать в группе, ответьте: сколько будет { $sum }?
moderation-gate-ask-button = Нажмите кнопку, чтобы войти в группу.
moderation-gate-passed = Добро пожаловать! Теперь можно писать в группе.
moderation-gate-wrong = Неверно. Откройте вопрос ещё раз через полминуты.
moderation-gate-too_early = Подождите полминуты и откройте вопрос ещё раз.
moderation-gate-nothing = Здесь нечего делать.
moderation-gate-failed = Telegram вас не впустил. Попробуйте ещё раз или напишите администратору группы.
button-gate-pass = Я не бот
button-gate-question = Ответить
moderation-raid =
    Включён режим набега. Вступившие только читают, пока не пройдут проверку.
    Вступило за минуту до этого: { $joins }
moderation-raid-dry =
    Пробный режим: сейчас включился бы режим набега. Никто не ограничен.
    Вступило за минуту до этого: { $joins }
moderation-raid-over = Набег закончился. Вступило: { $joins }, прошло проверку: { $passed }.
moderation-raid-ended = Режим набега выключен.
moderation-raid-none = Набега нет.
moderation-raid-usage = Как пользоваться: /raid on, /raid off. /newcomers raid <число> задаёт, от скольких вступлений в минуту режим включается сам.
button-raid-end = Закончить
moderation-trusted = { $name } теперь считается постоянным участником.
moderation-untrusted = { $name } теперь считается новичком.
moderation-lock-usage = Как пользоваться: /lock <вид>, /unlock <вид>. Виды: { $kinds }
command-newcomers = вход, режим набега и запреты для новичков
command-raid = включить или выключить режим набега
command-trust = считать участника постоянным (в ответ на сообщение)
command-untrust = считать участника новичком (в ответ на сообщение)
command-lock = запретить новичкам вид сообщений
command-unlock = разрешить новичкам вид сообщений

## The operator's console in a browser

web-overview = Обзор
web-providers = Провайдеры
web-usage = Расход
web-audit = Журнал
web-settings = Настройки
web-navigation = Консоль
web-skip = К содержимому
web-sign-in = Вход
web-sign-out = Выйти
web-signed-in = Вы вошли: { $who }
web-sign-in-wrong = Это не значение WEB_TOKEN.
web-sign-in-unavailable = Redis не отвечает, поэтому войти сейчас нельзя.
web-sign-in-foreign = Форму отправила страница другого сайта. Откройте саму консоль по её адресу и войдите там.
web-link-refused = Эта ссылка уже использована или устарела. Отправьте боту /console, чтобы получить новую.
web-link-help = Ссылка действует один раз: вы войдёте как оператор, который запросил её у бота.
web-app-expired = Вход через Telegram старше часа. Закройте это окно и откройте консоль из бота ещё раз.
web-app-refused = Вход через Telegram здесь недействителен, или вы не оператор этого бота.
web-app-opening = Вход через Telegram…
web-app-token = Войти по токену
web-connection-lost = Связь потеряна. Показаны данные на
web-token = Токен консоли
web-token-help = Значение WEB_TOKEN. Операторы могут также получить ссылку: отправьте боту /console.
web-open = Открыть консоль
web-now = Кто отвечает сейчас
web-answers = Отвечает { $provider }
web-beside = { $provider }: { $state }{ $until ->
    [none] {""}
   *[other] , до { $until }
}{ $next ->
    [none] {""}
   *[other] , следующая попытка в { $next }
}{ $reason ->
    [none] .
   *[other] {" "}({ $reason }).
}
web-beside-more = { $count ->
    [one] И ещё { $count } провайдер.
    [few] И ещё { $count } провайдера.
   *[other] И ещё { $count } провайдеров.
}
web-order = Порядок следующего запроса
web-state-answers = Отвечает
web-state-stands-by = Наготове
web-state-forced = Назначен
web-state-cooling = На паузе
web-state-probing = Проверяется
web-state-half-open = Ждёт проверки
web-state-not-configured = Не настроен
web-state-over-cap = Лимит исчерпан
web-cause-key = Ключ отклонён
web-cause-account = Счёт пуст или заблокирован
web-cause-model = Модель не найдена
web-cause-settings = Настройки отклонены
web-cause-quota = Квота исчерпана
web-cause-down = Не отвечает
web-cause-errors = Пауза после ошибок
web-cause-loading = Загружает модель
web-cause-unreadable = Нечитаемые ответы
web-until = до { $at }
web-next-try = следующая попытка в { $at }
web-state-refused = Нужно исправить
web-asked-last = Пока это не исправлено, его спрашивают последним.
web-over-cap-help = Расход за сегодня достиг дневного лимита. До полуночи провайдер не используется.
web-raise-cap = Поднять лимит
web-replace-key = Заменить ключ
web-mend = Исправить
web-why-first = Первый в вашем списке.
web-why-forced = Назначен до { $until }.
web-why-preferred = Подменил другого и пока продолжает отвечать.
web-why-instead = Предыдущие в списке сейчас недоступны.
web-median = медиана { $seconds } с
web-seconds = { $seconds } с
web-all-providers = Все провайдеры: { $count }
web-first-output = Первый текст
web-latency = медиана { $median } с, p95 { $p95 } с
web-no-provider = Нет доступных провайдеров
web-no-provider-help = Пользователям бот сообщает, что провайдеры недоступны, и предлагает спросить ещё раз. Добавленный здесь провайдер работает сразу.
web-redis-gone = Redis не отвечает. Каждая реплика решает сама, а изменение действует только на этой, пока Redis не вернётся.
web-database-unavailable = База данных не отвечает. На провайдеров это не влияет.
web-requests-today = Запросов сегодня
web-failed-today = Сбоев сегодня
web-cost-today = Стоимость сегодня
web-failovers = Подмены за 24 ч
web-failovers-hour = за последний час: { $count }
web-work-now = Сейчас в работе
web-work-waiting = ждут: { $count }
web-unpriced = { $count ->
    [one] { $count } запрос без известной цены
    [few] { $count } запроса без известной цены
   *[other] { $count } запросов без известной цены
}
web-needs-you = Требует внимания
web-needs-nothing = Ничего не требует внимания
web-is-left-out = { $provider } не используется
web-left-out-more = { $count ->
    [one] Не используется ещё { $count } провайдер
    [few] Не используются ещё { $count } провайдера
   *[other] Не используются ещё { $count } провайдеров
}
web-first-lanes = Первые { $count } в вашем списке
web-look = Посмотреть
web-set-up = Настроить
web-use-again = Вернуть сейчас
web-release = Снять назначение
web-force = Назначить…
web-force-for = На { $time }
web-cool = Отложить
web-edit = Изменить
web-add = Добавить провайдера
web-test = Проверить
web-test-now = Проверить сейчас
web-test-again = Проверить ещё раз
web-test-help = Спрашивает сервер со значениями этой формы до сохранения: список моделей, потом запросы на несколько токенов, как в чате, и один с маленькой картинкой.
web-test-answered = { $model } отвечает
web-test-took = Через { $seconds } с
web-test-failed = { $model } не отвечает
web-test-without = Отвечает без { $feature ->
    [tools] инструментов
    [system_role] системной роли
    [streaming] потока
   *[other] { $feature }
}
web-back = К провайдерам
web-providers-help = Запрос идёт к первому по порядку провайдеру, который не на паузе; пробуется не больше { $hops }. Изменения доходят до всех реплик за секунду.
web-order-overridden = Порядок из AVAILABLE_PROVIDERS заменён здесь. Вернуть его можно в разделе
web-undo-force = Отменить назначение
web-test-all = Проверить все
web-drag = Перетащите, чтобы изменить порядок
web-move-keys = Порядок: перетащите карточку за ручку или нажмите Alt со стрелкой вверх или вниз, когда фокус на карточке.
web-position = Место { $number }
web-move-up = Поднять { $provider }
web-move-down = Опустить { $provider }
web-remote = Внешний
web-local = На своём сервере
web-in-flight = В работе
web-key-from-console = ключ: консоль
web-key-from-environment = ключ: окружение
web-key-from-default = ключ: по умолчанию
web-connection = Соединение
web-id = Имя
web-id-help = Буквы, цифры, - и _. Видно в чатах и журналах, потом не меняется.
web-id-taken = Провайдер { $id } уже есть.
web-form-incomplete = Нужны имя и хотя бы одна модель.
web-kind = Вид
web-base-url = Базовый URL
web-base-url-help = Обычно кончается на /v1 и никогда на /chat/completions.
web-key = Ключ
web-key-set = задан; пустое поле его не меняет
web-key-set-at = задан { $at }; пустое поле его не меняет
web-key-help = Шифруется ключом SECRETS_KEY. Его можно заменить, но не увидеть.
web-no-secrets-key = Чтобы хранить ключи здесь, задайте SECRETS_KEY; до тех пор они берутся из окружения.
web-key-again = Ключ использован для проверки и назад не отправляется. Введите его ещё раз перед сохранением.
web-search-models = Часть имени модели
web-search = Найти
web-catalogue = Модели сервера
web-show-catalogue = Показать модели сервера
web-catalogue-count = { $count ->
    [one] { $count } модель в списке
    [few] { $count } модели в списке
   *[other] { $count } моделей в списке
}
web-catalogue-help = Отмеченные модели добавятся при сохранении, проверке или поиске.
web-catalogue-empty = Других моделей с таким именем нет
web-no-catalogue = Не удалось получить список моделей: { $reason }
web-look-for-servers = Найти серверы рядом
web-look-again = Искать ещё раз
web-local-servers = Серверы на этом компьютере
web-local-servers-help = Опрошены обычные порты Ollama, LM Studio, llama.cpp, vLLM, LiteLLM, Jan, KoboldCpp, SGLang и других.
web-no-local-servers = Ни один из обычных портов не отвечает списком моделей. Если бот работает в контейнере, проверен сам контейнер.
web-server-wants-key = Нужен ключ
web-server-known = настроен
web-inspected-server = { $grade ->
    [ok] Сервер доступен
   *[other] Сервер недоступен
}
web-inspected-key = { $grade ->
    [ok] Ключ принят
   *[other] Ключ отклонён
}
web-inspected-models = { $grade ->
    [ok] Моделей в списке: { $count }, выбранные среди них
    [note] Сервер не показывает список моделей
   *[other] Нет в списке сервера: { $model }
}
web-inspected-answer = { $grade ->
    [ok] { $model } отвечает
   *[other] { $model } не отвечает
}
web-inspected-streaming = { $grade ->
    [ok] Отвечает потоком
   *[other] Без потока: ответ появляется сразу целиком
}
web-inspected-tools = { $grade ->
    [ok] Принимает инструменты
   *[other] Без инструментов: чат обойдётся без них
}
web-inspected-system_role = { $grade ->
    [ok] Принимает инструкции
   *[other] Без системной роли: инструкции идут в первое сообщение
}
web-inspected-vision = { $grade ->
    [ok] Видит картинки
   *[other] Не видит картинок: фото идут следующему провайдеру
}
web-where = Куда уходят запросы
web-remote-help = Внешний: запросы уходят с ваших серверов, чаты без согласия сюда не попадают
web-models = Модели
web-models-help = По одной в строке, первая используется по умолчанию
web-limits = Ограничения
web-cap = Лимит в день, USD
web-cap-help = Сверх него провайдер пропускается; пусто: без лимита.
web-at-once = Одновременно
web-at-once-help = Запросов со всех реплик; пусто: без ограничения.
web-first-within = Первый текст не позже, секунд
web-stall = Пауза в потоке, секунд
web-within = Обычный ответ не дольше, секунд
web-retries = Повторов после сбоя
web-save = Сохранить и использовать
web-discard = Отменить
web-remove = Удалить
web-remove-question = Удалить { $provider }?
web-remove-help = Ключ, который хранится здесь, будет стёрт без возврата. Расход останется в записях.
web-remove-others = Следующие запросы пойдут к { $providers }.
web-remove-last = Это единственный провайдер: без него никто не получит ответа.
web-remove-confirm = Удалить { $provider }
web-keep = Оставить
web-period = Период
web-days = { $days ->
    [one] { $days } день
    [few] { $days } дня
   *[other] { $days } дней
}
web-usage-help = Запросы всех реплик; день начинается в полночь по { $zone }.
web-last-day = Последние 24 часа
web-events = События
web-no-events = За последние 24 часа ничего не менялось
web-day-of = Состояния { $provider } за последние 24 часа
web-now-short = сейчас
web-span = { $begin }–{ $end }: { $state ->
    [answers] отвечал
    [stands_by] наготове
    [forced] назначен
    [cooling] был на паузе
    [probing] ждал проверки
   *[not_configured] не настроен
}{ $reason ->
    [none] {""}
   *[other] , { $reason }
}
web-event = { $state ->
    [answers] отвечает
    [stands_by] снова в строю
    [forced] назначен
    [cooling] на паузе
   *[not_configured] не настроен
}
web-last-hour = за час, p95 { $p95 } с
web-changes = Смены состояния
web-plot-label = { $title } по провайдерам, до { $top }
web-nothing-measured = За этот период данных нет
web-budgets = Бюджеты на сегодня
web-budget = Бюджет
web-spent = Потрачено
web-spent-of = Потрачено из бюджета: { $name }
web-no-limit = без лимита
web-all-requests = все запросы
web-budget-of = Бюджет
web-budget-user = человека
web-budget-chat = чата
web-telegram-id = Id в Telegram
web-budget-amount = USD, none или default
web-set-budget = Задать
web-budget-invalid = Id — целое число, а сумма — USD, «none» (без лимита) или «default» (как в настройках).
web-provider = Провайдер
web-requests = Запросы
web-failed = Сбои
web-tokens-in = Токены на входе
web-tokens-out = Токены на выходе
web-cost = Стоимость
web-no-usage = За этот период запросов не было
web-audit-help = Действия операторов, сначала новые. Изменить записи нельзя.
web-audit-kinds = Вид действий
web-pages = Страницы
web-act = Действие
web-target = Объект
web-detail = Подробности
web-by = Кто
web-by-token = WEB_TOKEN
web-when = Когда
web-no-acts = Действий пока не было
web-settings-help = Консоль заменяет окружение для провайдеров. Всё остальное читается при запуске.
web-variable = Переменная
web-in-effect = Действует
web-source = Источник
web-source-console = консоль
web-source-environment = окружение
web-source-default = по умолчанию
web-is-set = задано
web-is-not-set = не задано
web-reset = Вернуть
web-export = Выгрузить как .env
web-send-to-me = Прислать мне в Telegram
web-file-no-telegram = Прислать файл можно только оператору, вошедшему через Telegram, пока бот работает.
web-file-not-sent = Telegram не принял файл. Откройте личный чат с ботом и попробуйте ещё раз.
web-did-file-sent = { $about } — в вашем личном чате с ботом.
web-undo = Отменить действие
web-undo-decision = Отменить: снять меры бота, разрешить текст
web-undo-late = С тех пор что-то изменилось, отменить уже нельзя.
web-undo-busy = Это отменяется прямо сейчас.
web-undo-gone = Это уже отменено, или прошло больше получаса.
web-undo-unavailable = Redis не отвечает, поэтому отменить сейчас нельзя.
web-moderation = Модерация
web-compare = Сравнение
web-count-waiting = ждут решения
web-compare-help = Голоса из /compare и реакции 👍 и 👎 на ответы. Хранятся только числа, вопросы не хранятся.
web-compare-leads = { $count ->
    [one] Предпочитают { $name }: { $percent } % из { $count } голоса.
   *[other] Предпочитают { $name }: { $percent } % из { $count } голосов.
}
web-compare-open = { $count ->
    [one] { $count } голос: явного предпочтения пока нет.
    [few] { $count } голоса: явного предпочтения пока нет.
   *[many] { $count } голосов: явного предпочтения пока нет.
}
web-compare-none = За этот период голосов нет.
web-compare-wins = Кого предпочитают
web-compare-interval = Линия — доверительный интервал 95 %. Преимущество есть, когда вся она правее середины, 50 %.
web-compare-share = Доля голосов
web-compare-between = { $percent } %, от { $low } % до { $high } %
web-all-time = Всё время
web-group-by = Группировка
web-by-provider = Провайдер
web-by-model = Модель
web-by-purpose = Назначение
web-votes = Голоса
web-thumbs = Реакции 👍 / 👎
web-pairs = Пары
web-pairs-help = Меньше { $count } голосов — слишком мало для вывода.
web-pair = Пара
web-split = Соотношение
web-split-of = { $wins } из { $count }
web-result = Вывод
web-against = против
web-ties = { $count ->
    [one] { $count } ничья
    [few] { $count } ничьи
   *[many] { $count } ничьих
}
web-too-few-votes = Слишком мало голосов
web-preferred = Предпочитают { $name }
web-no-difference = Разницы не видно
web-no-votes = Голосов пока нет
web-no-votes-help = /compare в Telegram задаёт один вопрос двум моделям и предлагает выбрать лучшую; реакции 👍 и 👎 на ответы тоже считаются.
web-judged-today = Проверено сегодня
web-judged-of = { $seen ->
    [one] из { $seen } сообщения; моделью — { $asked }
   *[other] из { $seen } сообщений; моделью — { $asked }
}
web-acted-today = Меры сегодня
web-cards-today = ещё { $count } — только карточки администраторам
web-undone-month = Отменено за 30 дней
web-undone-of = { $undone } из { $acted }
web-pending = Ждут провайдера
web-pending-help = проверяются в течение 10 минут после его возвращения
web-groups = Группы
web-groups-moderated = модерируются { $moderated } из { $count }
web-groups-first = Показаны первые группы по числу сообщений: { $count }.
web-group-counts = за 30 дней: сообщений { $seen }, мер { $acted }
web-erred = Где были ошибки
web-erred-help = отменено из принятых мер, 30 дней
web-breakdown = Разбивка
web-share-of-cost = Доля расходов
web-total = Всего
web-purpose = { $purpose ->
    [chat] Чат
    [moderation] Модерация
    [naming] Названия разговоров
    [api] Другие программы
    [compare] Сравнения
    [speech] Озвучивание
    [voice] Распознавание речи
    [summary] Пересказы разговоров
    [images] Картинки
    [embeddings] Эмбеддинги
    [script] Скрипты
   *[other] Прочее: { $purpose }
}
web-first-output-day = Время до первого вывода
web-first-output-help = Медиана в секундах по четвертям часа, последние 24 часа
web-dead = Недоставленное
web-broadcasts = Рассылки
web-broadcasts-help = Сообщение всем, у кого есть личный чат с ботом. Ничего не отправляется, пока вы не увидите число чатов и не подтвердите.
web-new-broadcast = Новая рассылка
web-broadcast-text = Текст
web-broadcast-text-help = Обычный текст до 4096 знаков. Команда /broadcast в Telegram сохраняет оформление.
web-broadcast-count = Посчитать чаты
web-broadcast-invalid = В рассылке должно быть от 1 до 4096 знаков.
web-broadcast-draft = не отправлена
web-broadcast-running = отправляется
web-broadcast-stopped = остановлена
web-broadcast-done = завершена
web-broadcast-would-go = { $total ->
    [one] Сообщение получит { $total } чат.
    [few] Сообщение получат { $total } чата.
   *[other] Сообщение получат { $total } чатов.
}
web-broadcast-served = { $total ->
    [one] { $served } из { $total } чата
   *[other] { $served } из { $total } чатов
}
web-broadcast-counts = { $total ->
    [one] { $served } из { $total } чата: доставлено { $sent }, заблокировали бота { $blocked }, не удалось { $failed }
   *[other] { $served } из { $total } чатов: доставлено { $sent }, заблокировали бота { $blocked }, не удалось { $failed }
}
web-broadcast-question = { $total ->
    [one] Отправить это сообщение в { $total } чат?
    [few] Отправить это сообщение в { $total } чата?
   *[other] Отправить это сообщение в { $total } чатов?
}
web-broadcast-question-help = Отправку можно остановить. Доставленные сообщения вернуть нельзя.
web-not-yet = Пока нет
web-broadcast-act-send = { $total ->
    [one] Отправить в { $total } чат
    [few] Отправить в { $total } чата
   *[other] Отправить в { $total } чатов
}
web-broadcast-act-resume = Продолжить отправку
web-broadcast-act-stop = Остановить
web-broadcast-act-discard = Удалить
web-broadcast-changed = Рассылка уже изменилась. Откройте страницу заново.
web-no-broadcasts = Рассылок пока нет
web-did-broadcast-drafted = Чаты посчитаны. Пока ничего не отправлено.
web-did-broadcast-send = Рассылка отправляется.
web-did-broadcast-stop = Рассылка остановлена. Сообщения в пути ещё дойдут.
web-did-broadcast-discard = Рассылка удалена.
web-tokens = Токены API
web-more = Ещё
web-no-daemon = Telegram не работает в этом процессе
web-no-daemon-help = Бот ещё запускается, или этот процесс обслуживает только другие программы.
web-which-cards = Карточки
web-waiting = Ждут
web-decided = Решены
web-moderation-help = Карточки всех групп, последние 50. Текст видят только админы его группы; через 7 дней он стирается.
web-no-cards = Карточек нет
web-card-keys = Клавиши на карточке в фокусе: J — следующая, K — предыдущая, C — подтвердить, U — отменить.
web-cards-wait = { $count ->
    [one] { $count } карточка модерации ждёт решения
    [few] { $count } карточки модерации ждут решения
   *[other] { $count } карточек модерации ждут решения
}
web-sign-in-as-person = Вы вошли по WEB_TOKEN. Чтобы читать карточки и принимать решения, откройте консоль из бота: Telegram подтвердит, в каких группах вы админ.
web-not-admin-there = Вы не админ этой группы, поэтому текст не показан.
web-dry-run = без действий
web-group = группа { $id }
web-nothing-done = Ничего не сделано
web-dead-help = Сообщения, от обработки которых бот отказался. Их текст не показан.
web-no-letters = Всё обработано
web-letter-private = Из личного чата
web-letter-group = Из группы
web-letter-other = Другое задание
web-letters-wait = { $count ->
    [one] { $count } недоставленное сообщение
    [few] { $count } недоставленных сообщения
   *[other] { $count } недоставленных сообщений
}
web-letter-gone = Этой записи больше нет: её уже повторили или удалили.
web-letters-many = Недоставленных сообщений: { $count } или больше
web-cards-many = Карточек модерации ждут решения: { $count } или больше
web-letters-newest = Показаны последние { $count }; более старые появятся, когда вы разберёте эти.
web-retry-these = Повторить эти { $count }
web-retry = Повторить
web-retry-all = Повторить все
web-drop = Удалить
web-drop-question = Удалить недоставленное { $id }?
web-drop-help = Сообщение будет удалено без ответа. Вернуть его нельзя.
web-tokens-help = Для программ, которые обращаются к /v1. Токен открывает только это; без своих лимитов у него те же, что у человека.
web-no-tokens = Токенов пока нет
web-new-token = Новый токен
web-make-token = Создать токен
web-token-made = Токен { $name } создан
web-token-once = Скопируйте его сейчас: он не хранится и больше не будет показан.
web-token-name-help = Буквы, цифры, - _ и точка, до 32 знаков. Имя видно в расходах и в журнале.
web-token-name-invalid = В имени могут быть латинские буквы, цифры, - _ и точки, до 32 знаков; первой идёт буква или цифра.
web-token-exists = Токен с таким именем уже есть.
web-token-limits-invalid = Лимит — неотрицательное число, а модель записывается как провайдер/модель.
web-token-budget = Бюджет на день, USD
web-token-empty = Пусто: как у человека.
web-token-rate = Запросов в минуту
web-token-running = Одновременных запросов
web-token-zero = Пусто: как у человека. 0: без лимита.
web-token-consent = Запросы можно отправлять за пределы ваших серверов
web-token-consent-default = как у человека
web-token-consent-yes = внешним провайдерам
web-token-consent-no = только на своих серверах
web-token-models = Модели
web-token-models-help = Шаблоны провайдер/модель, например ollama/*; пусто — все.
web-revoke = Отозвать
web-revoke-question = Отозвать { $name }?
web-revoke-help = Программа с этим токеном будет получать 401 на всех репликах через секунду. Вернуть токен нельзя.
web-did-decided = По карточке { $about } принято решение.
web-did-let-through = Карточка { $about } отменена: меры бота сняты, её текст теперь разрешён.
web-did-retried = Недоставленное { $about } снова в очереди.
web-did-retried-all = Недоставленные сообщения снова в очереди.
web-did-dropped = Недоставленное { $about } удалено.
web-did-token-changed = Лимиты токена { $about } изменены.
web-did-token-revoked = Токен { $about } отозван.
web-did-budget-set = Бюджет задан: { $about }.
web-did-forced = { $about } назначен.
web-did-released = Провайдеры снова опрашиваются по порядку.
web-did-cooled = { $about } отложен.
web-did-reset = { $about } снова используется.
web-did-moved = { $about } теперь на месте { $place } в вашем порядке.
web-did-saved = { $about } сохранён и используется.
web-did-removed = { $about } удалён.
web-did-reset-setting = У { $about } снова значение из окружения.
web-did-undone = Изменение отменено.
web-not-found = Такой страницы нет или больше нет.
web-conflict = Другой оператор тем временем изменил настройки. Откройте страницу заново и повторите изменение.
web-foreign-form = Эта форма не от вашего сеанса. Откройте страницу заново.

## Настройки, язык, роль

language-name = Русский
settings-title = Настройки этого чата. Нажмите, чтобы изменить.
settings-title-group = Настройки этой группы. Менять их могут только администраторы: нажмите на настройку.
settings-group-admins-only = В группе менять её настройки могут только администраторы.
settings-stream = Ответ появляется: { $value }
settings-stream-edit = по мере написания
settings-stream-draft = как черновик
settings-stream-off = целиком
settings-footers = Кто ответил: { $value }
settings-footers-0 = скрыто
settings-footers-1 = показано
settings-voice = Ответы голосом: { $value }
settings-voice-never = никогда
settings-voice-to_voice = на голосовые
settings-voice-always = всегда
settings-language = Язык: { $value }
settings-persona = Роль: { $value }
language-title = На каком языке мне писать вам? Это действует во всех чатах со мной. На вопросы я отвечаю на языке вопроса.
language-title-group = На каком языке мне писать в этой группе? На вопросы я отвечаю на языке вопроса.
language-automatic = Как в Telegram
language-set = Теперь я пишу по-русски.
persona-title-thread =
    Как мне отвечать в этом разговоре? Сейчас: { $current }
    /persona ТЕКСТ задаёт собственные указания; новый разговор начнётся без них.
persona-title-persona = Как мне отвечать в новых разговорах этого чата? Сейчас: { $current }
persona-standard = Обычная
persona-own = ваши указания
persona-own-set = В этом разговоре я буду следовать вашим указаниям. Другие роли: /persona.
persona-brief-name = Кратко
persona-brief-about = Кратко: ответ в одном-двух предложениях
persona-brief-instructions =
    Отвечай одним-двумя короткими предложениями. Начинай сразу с ответа: без приветствия, без повторения вопроса и без предложений помочь ещё. Список давай, только если сам ответ является списком, а подробности — только если о них спросят. Если короткий ответ был бы неверен, добавь одно условие, при котором он верен.
persona-teacher-name = Учитель
persona-teacher-about = Учитель: объясняет по шагам, с примерами и вопросами
persona-teacher-instructions =
    Ты терпеливый учитель. Сначала выясни, что человек уже знает, и опирайся на это. Объясняй по одной мысли за раз простыми словами, каждую с небольшим примером из жизни, а термин называй тогда, когда мысль уже понятна. С упражнениями и домашними заданиями давай подсказку и следующий шаг, а не готовое решение, если о нём не просят прямо. В конце задай один короткий вопрос, по которому видно, понята ли суть.
persona-editor-name = Редактор
persona-editor-about = Редактор: исправляет и улучшает ваши тексты
persona-editor-instructions =
    Ты опытный редактор. Считай каждое сообщение текстом, который нужно улучшить, если это явно не вопрос и не указание. Сначала верни улучшенный текст на его языке: исправь орфографию, грамматику и пунктуацию, сократи длинное, сохрани смысл, тон и факты автора. Своих мыслей не добавляй. Затем в нескольких словах перечисли важные правки. Если предложение можно понять двояко, спроси.
persona-translator-name = Переводчик
persona-translator-about = Переводчик: переводит всё, что вы пишете
persona-translator-instructions =
    Ты профессиональный переводчик. Переводи каждое сообщение и присылай только перевод. Если язык перевода не оговорён, переводи на русский, а русские тексты — на английский. Передавай смысл и тон, а не отдельные слова, сохраняй имена, числа, оформление и код, а идиомы заменяй такими, какие сказал бы носитель языка. Если у слова несколько значений, выбирай по контексту и добавляй одной строкой другой вариант.
persona-programmer-name = Программист
persona-programmer-about = Программист: рабочий код и короткие пояснения
persona-programmer-instructions =
    Ты опытный разработчик. Отвечай работающим кодом: целиком, в блоке кода с указанием языка, для современных версий и без заглушек. Перед кодом одной фразой скажи, что он делает, после — только неочевидное: ограничения, цену, риски. Предпочитай стандартную библиотеку и простые решения. При ошибке сначала назови причину, потом исправление. Говори, если что-то зависит от версии или не проверено, и указывай на проблемы безопасности, даже если о них не спрашивали.
persona-critic-name = Критик
persona-critic-about = Критик: ищет слабые места в ваших идеях
persona-critic-instructions =
    Ты справедливый и требовательный критик. Сначала одной фразой скажи, что в идее или тексте хорошо. Затем назови самые слабые места, начиная с главного: что не доказано, что упущено, кто и почему не согласится, что будет, если предположение неверно. Для каждого приведи причину и, если можешь, скажи, как это проверить или исправить. Не льсти и не насмехайся. В конце задай один вопрос, ответ на который решит больше всего.

## Для операторов: провайдеры, недоставленное, уведомления

unit-s = { $number } с
unit-m = { $number } мин
unit-h = { $number } ч
operator-until = до { $time } (осталось { $left })
operator-requests = { $count ->
    [one] { $count } запрос
    [few] { $count } запроса
   *[other] { $count } запросов
 }, ошибок: { $failures }
operator-no-price = цена неизвестна
operator-partly-priced = { $cost } и без известной цены: { $unpriced }
operator-and = { $first } и { $last }
operator-none = нет
operator-nothing = ничего.
operator-works-without = работает без следующего: { $refused }
operator-window = её окно — { $tokens } токенов
operator-max-input = принимает не больше примерно { $tokens } токенов
operator-trial = { $model } ответила за { $time } мс: { $found }
operator-asked-without = { $model } запрашивается без следующего: { $capability }: { $refusal }
tested-streaming = поток
tested-no-streaming = без потока
tested-tools = инструменты
tested-no-tools = без инструментов
tested-system_role = системное сообщение
tested-no-system_role = без системного сообщения
without-settings = предел длины ответа и другие настройки
without-streaming = поток
without-tools = инструменты
without-tool_choice = выбор инструмента
without-system_role = системное сообщение (оно входит в первое сообщение пользователя)
without-images = изображения
without-structured_output = структурированный ответ
without-opus = звук в OGG/Opus (он отправляется как MP3)
without-web_search = собственный поиск
operator-no-provider = В AVAILABLE_PROVIDERS нет ни одного провайдера.
operator-redis-gone = Redis не отвечает: эта реплика действует по своему состоянию, а другие увидят изменения, только когда Redis вернётся.
operator-database-gone = База данных не отвечает: запросы считаются с запуска этого процесса, а расходы неизвестны.
operator-title = Провайдеры по приоритету; «сегодня» ({ $zone }) — по всем репликам, остальное — по этому процессу.
operator-title-process = Провайдеры по приоритету; счётчики этого процесса.
operator-capability-voice = Расшифровка речи:
operator-capability-speech = Озвучивание:
operator-capability-images = Картинки:
operator-capability-embeddings = Эмбеддинги:
operator-models = модели: { $models }
operator-today = сегодня: { $counted }, { $cost }
operator-in-flight = выполняется: { $count }
operator-in-flight-limit = выполняется: { $count }, предел на все реплики: { $limit }
operator-first-output = первый вывод: { $latency }
operator-latency-once = { $seconds } с (один раз)
operator-latency = медиана { $median } с, 95% за { $slowest } с
operator-last-error = последняя ошибка: { $error }
operator-it-said = ответ сервера: «{ $words }»
operator-rests = { $model } на паузе { $until }: { $reason }
operator-state-healthy = исправен
operator-state-preferred = предпочитается
operator-state-forced = выбран принудительно
operator-state-cooling = на паузе
operator-state-probing = проверяется
operator-state-half-open = будет проверен следующим запросом
operator-state-not-configured = не настроен
operator-provider-usage = Команда: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]; время: 90s, 10m, 2h, просто число — минуты (без него: force { $force }, cooldown { $cooldown }). Провайдеры: { $known }.
operator-no-duration = Это не время от 1s до 168h.
operator-not-configured = { $provider } не настроен: { $reason }.
operator-no-such-provider = Такого провайдера нет.
operator-forced = { $provider } запрашивается первым { $until }. Если он откажет, ответят другие.
operator-cleared = Принудительный и предпочитаемый провайдеры сброшены: действует порядок AVAILABLE_PROVIDERS. Паузы остаются.
operator-cools = { $provider } на паузе { $until }: другие запрашиваются раньше него.
operator-cools-forced = { $provider } на паузе, но выбран принудительно { $until } и до тех пор запрашивается первым.
operator-reset = { $provider } сброшен: пауза снята, он снова на своём месте в AVAILABLE_PROVIDERS.
operator-fails = { $provider } не работает: { $model }: { $reason }, через { $time } мс.
operator-key-hint = {" "}(ключ, учётная запись или имя модели)
operator-works = { $provider } работает: { $trial }; { $key }.
operator-key-unset = ключ не задан
operator-key-accepted = ключ принят
operator-still-cools = Он ещё на паузе { $until }; снять её: /provider reset { $provider }.
operator-all-today = Все пользователи сегодня, по провайдерам:
operator-all-month = Все пользователи за месяц, по провайдерам:
operator-tokens = токенов: { $input } на входе, { $output } на выходе
operator-estimated = (оценено: { $count })
operator-act-force = выбрать
operator-act-test = проверить
operator-act-cooldown = пауза
operator-act-reset = сбросить
operator-act-clear = вернуть порядок
operator-act-refresh = обновить
operator-act-replay = повторить
operator-act-drop = удалить
dead-usage = Команда: /dead [replay <номер> | drop <номер>]
dead-none = Недоставленного нет: все сообщения обработаны.
dead-title = Недоставленное, сначала новое: окончательно не удалось или не прочитано.
dead-none-such = Записи { $number } нет.
dead-replayed = Запись { $number } снова в очереди. Если не получится ещё раз, она вернётся в этот список.
dead-dropped = Запись { $number } удалена.
notice-it-said = Ответ сервера: «{ $words }».
notice-misconfigured = { $provider } не принимает ключ, учётную запись или модель: { $reason }.
notice-misconfigured-help = Он ставится на паузу по 30 минут. После исправления (изменённые переменные окружения требуют перезапуска) его вернёт /provider reset { $provider }.
notice-given-up = Сообщение не удалось обработать, оно среди недоставленных: { $reason }. Показать: /dead.
notice-inbox-failed = Мне придётся остановиться: { $reason }. Сообщения сохранены, я отвечу на них, когда это исправят и меня запустят снова.
notice-no-provider = Ни один ИИ-провайдер не отвечает. { $reasons }. Подробнее: /provider.
notice-again = { $provider } снова отвечает; запросы обслуживаются.
notice-leader-back = { $after } снова отвечает вместо { $before }.
notice-leader-failed = { $before } отказал ({ $reason }). Теперь отвечает { $after }. Подробнее: /provider.
console-off = Консоль выключена. Задайте WEB_PORT и WEB_TOKEN (и WEB_PUBLIC_URL, если её открывают с других компьютеров) и перезапустите бота.
console-not-here = Ссылка впускает без пароля, поэтому я присылаю её только в личном чате: отправьте /console там.
console-unavailable = Redis не отвечает, поэтому войти сейчас нельзя. Попробуйте ещё раз через минуту.
console-link =
    Откройте консоль (ссылка сработает один раз, в течение { $left }):
    { $link }
console-open-here = Открыть здесь
