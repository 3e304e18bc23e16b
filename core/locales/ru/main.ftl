# Обычный текст без разметки. Тест следит, чтобы ключи и переменные во всех языках совпадали.

## Знакомство

start =
    Здравствуйте, { $name }! Пишите мне, и я отвечу.
    Если модель, которой я думаю, вдруг замолчит, её подменит другая, так что просто продолжайте разговор.

    /new начинает сначала, /model выбирает модель, /help рассказывает об остальном.
help =
    Напишите сообщение, и я отвечу. В группе упомяните меня, ответьте на моё сообщение или используйте /ask.

    /new: новый разговор
    /threads: прежние разговоры: продолжить, переименовать, удалить
    /model: выбрать, кто отвечает
    /stop: остановить ответ, который сейчас пишется
    /usage: токены, ответы и стоимость за сегодня и за месяц
    /privacy: куда могут уходить ваши сообщения
    /help: эта справка

    Под ответом кнопка «Повторить» спрашивает ещё раз, а «Повторить у другого» обращается к другому провайдеру.
new-done = Готово, начинаем с чистого листа. О чём поговорим?
unknown-command = Я не знаю такой команды. Что я умею, расскажет /help.
not-allowed = Извините, я разговариваю только с теми, кто есть в моём списке. Обратитесь, пожалуйста, к тому, кто мной управляет.

## Пока пишется ответ

ask-usage = Напишите вопрос сразу после команды: /ask почему небо голубое?
nothing-asked = Да? Напишите вопрос рядом с моим именем, и я отвечу.
queue-full = Я за вами не успеваю: здесь и так ждут ответа слишком много сообщений. Отправьте это ещё раз чуть позже.
stopping = Останавливаюсь.
stopped = Остановлено.
nothing-to-stop = Останавливать нечего: сейчас я ничего не пишу.
interrupted = На этом месте ответ оборвался.
shutting-down = Меня перезапускают, поэтому ответ на этом заканчивается. Попробуйте ещё раз через минуту.
handed-back = Меня перезапускают. Этот ответ сам продолжится через мгновение.

## Что пошло не так

failed-all-providers = Сейчас мне никто не отвечает, извините. Попробуйте ещё раз чуть позже.
failed-refused = Провайдер отказался отвечать на это: { $reason }
failed-rejected = Провайдер не смог разобрать этот запрос. Попробуйте сказать иначе или начните заново с /new.
failed-too-long = Разговор стал слишком длинным для всех моих моделей. Начните, пожалуйста, новый: /new.
failed-limit = На это нужно больше шагов, чем мне можно сделать за один ответ. Попробуйте спросить о чём-то поменьше.
empty-answer = Кажется, тут нечего ответить.
failed-unexpected = У меня что-то сломалось, извините. Ошибка записана; попробуйте ещё раз.
failed-storage = Сейчас не получается обратиться к памяти, поэтому не вышло. Попробуйте через минуту.
failed-storage-footer = Этот ответ пока не удалось сохранить, поэтому потом я могу его не вспомнить.
degraded-memory-footer = Сейчас мне не удалось прочитать наш прежний разговор.

## Что пришло с сообщением

unsupported-media = С такими сообщениями я пока не умею работать. Я понимаю текст, картинки и текстовые файлы.
cannot-see-image = Ответившая модель не видит картинок, так что я опирался только на текст.
cannot-hear-audio = Я пока не умею слушать голосовые сообщения и аудио. Напишите, пожалуйста, текстом.
file-not-fetched = Не получилось получить этот файл от Telegram. Пришлите его, пожалуйста, ещё раз.
file-too-large = Этот файл для меня слишком велик. Пришлите, пожалуйста, поменьше.

## Под ответом

answered-by = ответ от { $provider }
demo-footer = Это встроенная демонстрация, а не модель. Чтобы говорить с настоящей, задайте, например, OPENAI_API_KEY в .env или запустите Ollama; подробности в README.md.

## Кнопки

button-stop = Остановить
button-retry = Повторить
button-retry-elsewhere = Повторить у другого
button-automatic = Автоматически
button-show-footers = Подписывать ответы
button-hide-footers = Не подписывать ответы
button-newer = Новее
button-older = Старше
button-open = Продолжить
button-delete = Удалить
button-really-delete = Да, удалить
button-back = Назад

## Выбор модели

model-title =
    Кто будет вам отвечать?
    Сейчас: { $current }
model-automatic = автоматически, первый из работающих провайдеров
model-automatic-set = Теперь выбор автоматический: отвечает первый из работающих провайдеров.
model-set = Теперь вам отвечает { $model } ({ $provider }). Если не получится, её подменит другая модель.
model-group-admins-only = В группе модель выбирают только её администраторы.
retry-pick = Кому попробовать?
footers-shown = Теперь под каждым ответом написано, кто его дал.
footers-hidden = Теперь под ответами не написано, кто их дал.
model-gone = Этот список устарел. Откройте /model ещё раз.
retry-gone = Это повторить уже нельзя.
retry-last-only = Повторить можно только последний ответ.

## Команды в меню Telegram

command-new = новый разговор
command-threads = прежние разговоры
command-model = выбрать, кто отвечает
command-stop = остановить ответ
command-usage = токены, ответы и стоимость
command-help = что я умею
command-report = пожаловаться на сообщение, в ответ на него
command-rules = правила этой группы
command-moderation = как модерируется эта группа
command-spam = это сообщение спам
command-ham = это сообщение не спам
command-warn = предупредить автора сообщения
command-unwarn = снять предупреждение

## В консоли

console-help =
    Напишите строку, и я отвечу.

    /new: новый разговор
    /threads: прежние разговоры; /threads 2 продолжает один из них
    /model: кто может отвечать; /model <провайдер> [<модель>] выбирает, /model auto возвращает выбор мне; /model footers on подписывает ответы
    /retry [<провайдер>]: ответить на последнее сообщение ещё раз, у этого провайдера, если он назван
    /provider: как дела у провайдеров; /provider help расскажет, что с ними можно делать
    /usage: токены, ответы и стоимость за сегодня и за месяц
    /privacy: куда могут уходить ваши сообщения
    /quit: выйти

    Ctrl-C останавливает ответ, Ctrl-D завершает работу.
console-ready = { $provider }: готов ({ $model })
console-model-missing = { $provider }: отвечает, но модели { $model } у него ещё нет (ollama pull { $model })
console-demo-stands-in = Сейчас никто из ваших провайдеров не может ответить, поэтому их подменяет встроенная демонстрация.
console-embedded-store = REDIS_URL не задан: сведения о провайдерах остаются в этом процессе. Разговоры сохраняются.
console-hint = /help перечисляет команды, Ctrl-C останавливает ответ, Ctrl-D или /quit завершает работу.
console-failed-over = { $failed } -> ответил { $provider }
console-model-others = ещё у него есть { $models }
console-model-usage = /model <провайдер> [<модель>] выбирает, /model auto возвращает выбор мне, /model footers on или off включает или выключает подпись под ответами.
console-unknown-provider = Я не знаю провайдера { $name }. Есть: { $known }.
console-unknown-model = У { $provider } нет модели { $name }. Есть: { $known }.
console-nothing-to-retry = Повторять пока нечего.
console-storage-failed = База данных не справилась: { $reason }

## Приватность

consent-question =
    На наших собственных машинах сейчас никто не может ответить. Можно передавать ваши сообщения из этого чата внешнему провайдеру? Отменить это можно в любой момент: /privacy.
consent-granted = Спасибо. Сообщения этого чата могут уходить внешним провайдерам; отменить можно через /privacy.
consent-withheld = Хорошо: сообщения этого чата остаются на наших машинах. Изменить это можно через /privacy.
consent-admins-only = В группе это решают только её администраторы.
button-agree = Можно
button-decline = Оставить у нас
privacy-local-only = На сообщения этого чата отвечают только наши собственные машины.
privacy-remote = Сообщения этого чата могут уходить и внешним провайдерам: { $providers }.
privacy-granted-by-operator =
    Сообщения могут уходить этим внешним провайдерам: { $providers }. Так для всех решил владелец бота.
console-privacy-usage = /privacy yes разрешает передавать их внешним провайдерам, /privacy no оставляет их здесь.
privacy-none = Внешних провайдеров нет: всё, что вы пишете, остаётся на машинах владельца бота.

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
usage-estimated = (частично по оценке)
usage-no-price = цена неизвестна
usage-partly-priced = { $cost } и { $unpriced ->
        [one] { $unpriced } запрос
        [few] { $unpriced } запроса
       *[many] { $unpriced } запросов
    } с неизвестной ценой
usage-days = День начинается в полночь по UTC.

## Разговоры

threads-title =
    Ваши разговоры здесь, сначала новые; • отмечает текущий.
    /threads rename <название> даёт ему другое название.
threads-none = Здесь ещё не было разговоров.
thread-unnamed = без названия
thread-card = { $name }
thread-really-delete = Удалить «{ $name }» со всем, что в нём сказано? Вернуть это будет нельзя.
thread-opened = Продолжаем «{ $name }».
thread-deleted = Удалено.
thread-gone = Этого разговора больше нет.
thread-renamed = Теперь этот разговор называется «{ $name }».
threads-rename-usage = Напишите название сразу после команды: /threads rename Планы на отпуск
threads-group-admins-only = В группе её разговоры меняют только администраторы.
console-threads-usage = /threads <номер> продолжает разговор, /threads rename <название> переименовывает текущий (*), /threads delete <номер> удаляет.
## Модерация: что написано на карточке

moderation-done = Сделано: { $acts }.
moderation-dry = Пробный режим: я ничего не делал. Было бы: { $acts }.
moderation-look = Посмотрите, пожалуйста. Сам я ничего не делал.
moderation-act-delete = сообщение удалено
moderation-act-mute = автор лишён голоса на 24 часа
moderation-act-ban = автор исключён
moderation-act-warn = автор предупреждён
moderation-act-warned = автор предупреждён ({ $count } из 3 за 30 дней)
moderation-act-muted = автор предупреждён ({ $count } за 30 дней) и лишён голоса на 24 часа
moderation-failed-delete = Удалить не получилось: { $reason }.
moderation-failed-sanction = Ограничить не получилось: { $reason }.
moderation-reason-no_right = у меня нет такого права
moderation-reason-protected = это администратор
moderation-reason-failed = Telegram отказал
moderation-who = От: { $name } ({ $id })
moderation-why-judge = Почему: { $category }, уверенность { $confidence }% ({ $provider })
moderation-why-rule = Почему: правило этой группы ({ $detail })
moderation-why-report = Почему: жалоб от участников: { $detail }
moderation-why-admin = Почему: { $detail } считает это спамом
moderation-why-outage = Почему: ни один провайдер не смог оценить; моя собственная оценка { $confidence } из 100
moderation-why-refused = Почему: фильтр провайдера отказался это читать ({ $detail })
moderation-evidence = Там сказано: «{ $evidence }»
moderation-evidence-missing = Судья не смог показать, где это сказано, поэтому решать вам.
moderation-evidence-name = Дело в имени, поэтому решать вам.
moderation-message = Сообщение:
moderation-no-text = Текста в нём нет.
moderation-erased = Что там было, стёрто: так происходит через 7 дней.
moderation-confirmed = Подтверждено: { $name }.
moderation-banned = Исключено: { $name }.
moderation-undone = Отменено: { $name }.
moderation-category-ok = ничего
moderation-category-job_scam = обман с работой
moderation-category-crypto_scam = криптообман
moderation-category-gambling = азартные игры
moderation-category-adult = материалы для взрослых
moderation-category-phishing = фишинг
moderation-category-channel_promo = реклама
moderation-category-flood = флуд
moderation-category-toxic = оскорбление
moderation-category-threat = угроза
moderation-category-off_topic = не по теме
moderation-category-injection = попытка командовать модератором
moderation-category-unsure = непонятно
button-undo = Отменить
button-confirm = Подтвердить
button-ban = Исключить

## Модерация: ответы на кнопки и команды

moderation-admins-only = Это могут только администраторы группы.
moderation-groups-only = Это работает в группах: добавьте меня администратором и скажите там.
moderation-resolved = Готово.
moderation-too-late = Это уже сделано.
moderation-card-gone = Об этом я уже ничего не знаю.
moderation-off-here = Модерация в этой группе выключена. Администратор включает её командой /moderation on.
moderation-on-dry = Модерация включена в пробном режиме: я ничего не делаю, а рассказываю, что сделал бы. Если всё нравится, скажите /moderation enforce.
moderation-on-enforce = Модерация включена, и я действую. С /moderation dry я буду только рассказывать, что сделал бы.
moderation-needs-rights = Чего мне ещё не хватает: сделайте меня администратором с правом удалять сообщения и блокировать.
moderation-switched-off = Модерация выключена.
moderation-usage = Я понимаю /moderation on, off, dry, enforce, stats, budget <число>, reports <число> и просто /moderation для всех настроек.
moderation-reply-needed = Скажите это в ответ на сообщение, о котором речь.
moderation-author-exempt = Администраторы и канал самой группы не модерируются.
moderation-spam-done = Удалено, запомнил.
moderation-ham-done = Запомнил: это не спам.
moderation-warned =
    { $name }, давайте дружелюбнее. Это предупреждение { $count } из 3 за 30 дней.
moderation-warned-muted = { $name }, это предупреждение { $count } за 30 дней. Писать снова можно через 24 часа.
moderation-unwarned = Предупреждение снято, осталось: { $count }.
moderation-no-warning = Предупреждений нет.
moderation-report-taken = Спасибо, смотрю.
moderation-report-again = На это вы уже жаловались.
moderation-report-too-many = За час вы пожаловались уже много раз. Передохните, пожалуйста.
moderation-no-right-delete = Есть что удалить, а права у меня нет: сделайте меня, пожалуйста, администратором с правом удалять сообщения.
moderation-no-right-restrict = Есть кого ограничить, а права у меня нет: сделайте меня, пожалуйста, администратором с правом блокировать. Лишать голоса можно только в супергруппах.
moderation-outage = Сейчас ни один провайдер не может оценивать сообщения. Сам я никого не наказываю; что ждёт, будет оценено, как только кто-то вернётся.
moderation-budget-spent = Оценки на сегодня ({ $budget }) израсходованы. До полуночи (UTC) работают только правила группы. /moderation budget <число> это меняет.
moderation-number-needed = Здесь нужно число от { $least } до { $most }.

## Модерация: настройки

moderation-settings =
    Модерация этой группы: { $mode }
    Чувствительность: { $preset }
    Язык: { $language }
    Могу исключать сам: { $ban }
    Оценивать могут внешние провайдеры: { $remote }
    Карточки получает: { $cards }
    Оценок в день: { $budget }
    Жалоб для карточки: { $reports }
moderation-mode-off = выключена
moderation-mode-dry = пробный режим
moderation-mode-enforce = действует
moderation-preset-lenient = мягкая
moderation-preset-standard = обычная
moderation-preset-strict = строгая
moderation-yes = да
moderation-no = нет
moderation-cards-here = эта группа
moderation-cards-person = администратор, лично
moderation-cards-unreachable = Я не могу написать вам лично. Сначала начните чат со мной.
moderation-cards-hello = Карточки модерации группы { $group } теперь приходят сюда.
button-mode-off = Выкл
button-mode-dry = Проба
button-mode-enforce = Действие
button-preset-lenient = Мягко
button-preset-standard = Обычно
button-preset-strict = Строго
button-ban-allowed = Исключать самому
button-remote = Внешние провайдеры
button-cards-here = Карточки сюда
button-cards-me = Карточки мне
button-rules = Правила
button-rule-flood = Флуд
button-rule-duplicates = Повторы
button-rule-mixed = Смесь алфавитов
button-rule-links = Ссылки: { $value }
button-rule-forwards = Пересылка: { $value }
button-rule-media = Новичкам без медиа
moderation-links-all = все
moderation-links-not_from_newcomers = не новым
moderation-links-listed = списком
moderation-links-none = нет
moderation-whom-nobody = можно
moderation-whom-newcomers = не новым
moderation-whom-everybody = нет
moderation-rules-none = Правил словами в этой группе нет.
moderation-rules-card =
    { $words }

    Ссылки: { $links }
    Пересылка: { $forwards }
    Запрещённые слова: { $banned }
    Домены, которым всегда рады: { $domains }

    Администраторам: /rules text <слова>, /rules ban <слово>, /rules unban <слово>, /rules domain <имя>, /rules undomain <имя>
moderation-rules-for-members =
    Правила этой группы:
    { $words }
moderation-rules-saved = Сохранено.
moderation-rules-usage = Я понимаю /rules text <слова>, /rules ban <слово>, /rules unban <слово>, /rules domain <имя>, /rules undomain <имя>.
moderation-stats =
    За последние дни ({ $days }):
    сообщений замечено: { $seen }
    оценено: { $judged }
    спрошено у модели: { $asked } ({ $share }%)
    не удалось оценить сразу: { $unjudged }
    действий: { $acted }
    только карточки: { $carded }
    отменено администраторами: { $undone }
    токенов: { $input } на входе, { $output } на выходе
    стоимость: { $cost }
moderation-cost = ${ $dollars }
moderation-cost-partly = ${ $dollars }, и ещё запросы с неизвестной ценой: { $unpriced }
