BEGIN TRANSACTION;
CREATE TABLE album_parts (
	chat_id BIGINT NOT NULL, 
	album VARCHAR(64) NOT NULL, 
	message_id BIGINT NOT NULL, 
	"update" TEXT NOT NULL, 
	taken_by VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_album_parts PRIMARY KEY (chat_id, album, message_id)
);
INSERT INTO "album_parts" VALUES(7,'album',1,'{"update_id":1}',NULL,'2027-01-15 08:00:00.000000');
INSERT INTO "album_parts" VALUES(7,'album',2,'{"update_id":2}',NULL,'2027-01-15 08:00:00.000000');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE answer_messages (
	surface VARCHAR(32) NOT NULL, 
	chat_id BIGINT NOT NULL, 
	message_id BIGINT NOT NULL, 
	turn_id BIGINT NOT NULL, 
	CONSTRAINT pk_answer_messages PRIMARY KEY (surface, chat_id, message_id), 
	CONSTRAINT fk_answer_messages_turn_id_turns FOREIGN KEY(turn_id) REFERENCES turns (id) ON DELETE CASCADE
);
INSERT INTO "answer_messages" VALUES('telegram',7,101,1);
INSERT INTO "answer_messages" VALUES('telegram',7,102,1);
CREATE TABLE attachments (
	turn_id BIGINT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	media_type TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_attachments PRIMARY KEY (turn_id, digest), 
	CONSTRAINT fk_attachments_turn_id_turns FOREIGN KEY(turn_id) REFERENCES turns (id) ON DELETE CASCADE
);
INSERT INTO "attachments" VALUES(1,'0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543','image/png',X'89504E47');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor_id BIGINT NOT NULL, 
	action TEXT NOT NULL, 
	target TEXT, 
	detail TEXT, 
	CONSTRAINT pk_audit PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2027-01-15 08:00:00.000000',1000,'provider.force','a','30m');
CREATE TABLE dead_letters (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(64) NOT NULL, 
	lane VARCHAR(128) NOT NULL, 
	priority BIGINT NOT NULL, 
	payload TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	failed_at DATETIME NOT NULL, 
	CONSTRAINT uq_dead_letters_job_id UNIQUE (job_id)
);
INSERT INTO "dead_letters" VALUES(1,'tg-42-000000000002','telegram:7:0',3,'{"kind":"update","update":{"update_id":2,"message":{"message_id":12,"date":1800000000,"chat":{"id":7,"type":"private","first_name":"Ann"},"from":{"id":7,"is_bot":false,"first_name":"Ann","language_code":"en"},"text":"Hello \ud83d"}},"is_for_bot":true,"is_admitted":true}','ValueError','2027-01-15 08:00:00.000000');
CREATE TABLE job_attempts (
	job_id VARCHAR(64) NOT NULL, 
	begun INTEGER NOT NULL, 
	alone INTEGER NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_job_attempts PRIMARY KEY (job_id)
);
INSERT INTO "job_attempts" VALUES('tg-42-000000000009',2,1,'2027-01-15 08:00:00.000000');
CREATE TABLE local_scores (
	scope BIGINT NOT NULL, 
	revision VARCHAR(32) NOT NULL, 
	weights BLOB NOT NULL, 
	spam_count INTEGER NOT NULL, 
	ham_count INTEGER NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_local_scores PRIMARY KEY (scope)
);
INSERT INTO "local_scores" VALUES(-100,'f304360615f247df815f4a89c982d14a',X'504B03042D000000080000002100D072DA91FFFFFFFFFFFFFFFF0900140073706163652E6E707901001000840000000000000046000000000000009BEC17EA1B10C9C850C650AD9E925A9C5CA46EA5A06E9369A2AEA3A09E965F54529498179F5F94920A12774BCC294E058A17672416A402F91A9A3A0AB50A14012E4606060600504B03042D0000000800000021009B3896BDFFFFFFFFFFFFFFFF0B001400636F6C756D6E732E6E70790100100088000000000000004B000000000000009BEC17EA1B10C9C850C650AD9E925A9C5CA46EA5A06E9369A2AEA3A09E965F54529498179F5F94920A12774BCC294E058A17672416A402F91A463A9A3A0AB50A14002E5606060637200600504B03042D000000080000002100A6877589FFFFFFFFFFFFFFFF0A00140076616C7565732E6E70790100100088000000000000004C000000000000009BEC17EA1B10C9C850C650AD9E925A9C5CA46EA5A06E9366A2AEA3A09E965F54529498179F5F94920A12774BCC294E058A17672416A402F91A463A9A3A0AB50A14002E068603F60C0C0DFB00504B03042D00000008000000210070EE9269FFFFFFFFFFFFFFFF0D001400696E746572636570742E6E707901001000880000000000000047000000000000009BEC17EA1B10C9C850C650AD9E925A9C5CA46EA5A06E9366A1AEA3A09E965F54529498179F5F94920A12774BCC294E058A17672416A402F91A9A3A0AB50A14012E063078600F00504B01022D032D000000080000002100D072DA91460000008400000009000000000000000000000080010000000073706163652E6E7079504B01022D032D0000000800000021009B3896BD4B000000880000000B0000000000000000000000800181000000636F6C756D6E732E6E7079504B01022D032D000000080000002100A68775894C000000880000000A000000000000000000000080010901000076616C7565732E6E7079504B01022D032D00000008000000210070EE926947000000880000000D0000000000000000000000800191010000696E746572636570742E6E7079504B05060000000004000400E3000000170200000000',3,2,'2027-01-15 08:00:00.000000');
CREATE TABLE moderation_days (
	group_id BIGINT NOT NULL, 
	day VARCHAR(10) NOT NULL, 
	seen INTEGER NOT NULL, 
	judged INTEGER NOT NULL, 
	asked INTEGER NOT NULL, 
	acted INTEGER NOT NULL, 
	carded INTEGER NOT NULL, 
	undone INTEGER NOT NULL, 
	unjudged INTEGER NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	CONSTRAINT pk_moderation_days PRIMARY KEY (group_id, day)
);
INSERT INTO "moderation_days" VALUES(-100,'2027-01-15',1,1,1,1,0,0,0,5,2);
CREATE TABLE moderation_groups (
	group_id BIGINT NOT NULL, 
	mode VARCHAR(8) NOT NULL, 
	preset VARCHAR(8) NOT NULL, 
	language VARCHAR(16) NOT NULL, 
	ban_allowed BOOLEAN NOT NULL, 
	remote BOOLEAN NOT NULL, 
	cards_to BIGINT, 
	rules TEXT NOT NULL, 
	house_rules TEXT NOT NULL, 
	budget INTEGER NOT NULL, 
	report_threshold INTEGER NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_moderation_groups PRIMARY KEY (group_id)
);
INSERT INTO "moderation_groups" VALUES(-100,'enforce','strict','ru',1,1,1000,'{"version": 1, "banned": ["pill*"], "links": "listed", "domains": ["site.org"], "forwards": "nobody", "media": ["sticker"], "newcomer_media": [], "flood": {"messages": 5, "seconds": 10}, "duplicates": {"times": 3, "seconds": 600, "shortest": 12}, "mixed_scripts": false}','Be kind.',100,2,'2027-01-15 08:00:00.000000');
CREATE TABLE moderation_incidents (
	id INTEGER NOT NULL, 
	group_id BIGINT NOT NULL, 
	message_id BIGINT NOT NULL, 
	version VARCHAR(48) NOT NULL, 
	message_ids TEXT NOT NULL, 
	topic_id BIGINT NOT NULL, 
	author_id BIGINT NOT NULL, 
	author_kind VARCHAR(8) NOT NULL, 
	author_name TEXT NOT NULL, 
	text TEXT, 
	category VARCHAR(16) NOT NULL, 
	confidence INTEGER NOT NULL, 
	evidence TEXT, 
	source VARCHAR(16) NOT NULL, 
	detail TEXT NOT NULL, 
	provider TEXT, 
	features TEXT NOT NULL, 
	deletes BOOLEAN NOT NULL, 
	sanction VARCHAR(8) NOT NULL, 
	until DATETIME, 
	dry_run BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	lease_until DATETIME, 
	sanctioned VARCHAR(16), 
	deleted VARCHAR(16), 
	card_chat_id BIGINT, 
	card_message_id BIGINT, 
	finished_at DATETIME, 
	confirmed_by TEXT, 
	banned_by TEXT, 
	undone_by TEXT, 
	CONSTRAINT pk_moderation_incidents PRIMARY KEY (id), 
	CONSTRAINT uq_moderation_incidents_message UNIQUE (group_id, message_id, version)
);
INSERT INTO "moderation_incidents" VALUES(1,-100,50,'42062173e5de624b091c4a317c16653d','[50]',0,9,'user','Bob','buy pills','job_scam',97,'pills','judge','','a','["link"]',1,'mute','2027-01-15 08:00:00.000000',0,'2027-01-15 08:00:00.000000',NULL,'done','done',1000,77,NULL,NULL,NULL,NULL);
CREATE TABLE moderation_members (
	group_id BIGINT NOT NULL, 
	member_id BIGINT NOT NULL, 
	first_seen DATETIME NOT NULL, 
	meaningful INTEGER NOT NULL, 
	CONSTRAINT pk_moderation_members PRIMARY KEY (group_id, member_id)
);
INSERT INTO "moderation_members" VALUES(-100,9,'2027-01-15 08:00:00.000000',1);
CREATE TABLE moderation_messages (
	group_id BIGINT NOT NULL, 
	message_id BIGINT NOT NULL, 
	version VARCHAR(48) NOT NULL, 
	album VARCHAR(64), 
	links TEXT NOT NULL, 
	seen_at DATETIME NOT NULL, 
	settled BOOLEAN NOT NULL, 
	removed BOOLEAN NOT NULL, 
	CONSTRAINT pk_moderation_messages PRIMARY KEY (group_id, message_id, version)
);
INSERT INTO "moderation_messages" VALUES(-100,50,'42062173e5de624b091c4a317c16653d',NULL,'[3258702753]','2027-01-15 08:00:00.000000',1,1);
CREATE TABLE moderation_pending (
	group_id BIGINT NOT NULL, 
	message_id BIGINT NOT NULL, 
	version VARCHAR(48) NOT NULL, 
	payload TEXT NOT NULL, 
	since DATETIME NOT NULL, 
	due_at DATETIME NOT NULL, 
	attempts INTEGER NOT NULL, 
	CONSTRAINT pk_moderation_pending PRIMARY KEY (group_id, message_id, version)
);
INSERT INTO "moderation_pending" VALUES(-100,50,'42062173e5de624b091c4a317c16653d','{"group_id":-100,"message_ids":[50],"author":{"id":9,"kind":"user","name":"Bob","username":null,"language":null},"sent_at":"2027-01-15T08:00:00Z","edited_at":null,"text":"buy pills","quoted":"","forwarded":"","is_forward":false,"links":["https://pills.example/"],"buttons":[],"media":[],"via_bot":null,"topic_id":0,"reply_to":null}','2027-01-15 08:00:00.000000','2027-01-15 08:01:00.000000',0);
CREATE TABLE moderation_reports (
	group_id BIGINT NOT NULL, 
	message_id BIGINT NOT NULL, 
	reporter_id BIGINT NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_moderation_reports PRIMARY KEY (group_id, message_id, reporter_id)
);
INSERT INTO "moderation_reports" VALUES(-100,50,8,'2027-01-15 08:00:00.000000');
CREATE TABLE moderation_warnings (
	id INTEGER NOT NULL, 
	group_id BIGINT NOT NULL, 
	member_id BIGINT NOT NULL, 
	source VARCHAR(48) NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_moderation_warnings PRIMARY KEY (id), 
	CONSTRAINT uq_moderation_warnings_source UNIQUE (group_id, source)
);
INSERT INTO "moderation_warnings" VALUES(1,-100,9,'incident:1','2027-01-15 08:00:00.000000');
CREATE TABLE notes (
	id INTEGER NOT NULL, 
	user_id BIGINT NOT NULL, 
	scope VARCHAR(64) NOT NULL, 
	text TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_notes PRIMARY KEY (id)
);
INSERT INTO "notes" VALUES(1,7,'telegram:7','likes tea','2027-01-15 08:00:00.000000');
CREATE TABLE preferences (
	scope VARCHAR(64) NOT NULL, 
	provider TEXT, 
	model TEXT, 
	footers BOOLEAN, 
	remote_consent BOOLEAN, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_preferences PRIMARY KEY (scope)
);
INSERT INTO "preferences" VALUES('telegram:7','a','m',0,1,'2027-01-15 08:00:00.000000');
CREATE TABLE said (
	job_id VARCHAR(64) NOT NULL, 
	chat_id BIGINT NOT NULL, 
	place INTEGER NOT NULL, 
	message_id BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_said PRIMARY KEY (job_id, chat_id, place)
);
INSERT INTO "said" VALUES('tg-42-000000000001',7,0,555,'2027-01-15 08:00:00.000000');
CREATE TABLE threads (
	id INTEGER NOT NULL, 
	surface VARCHAR(32) NOT NULL, 
	chat_id BIGINT NOT NULL, 
	topic_id BIGINT NOT NULL, 
	name TEXT, 
	is_current BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_threads PRIMARY KEY (id)
);
INSERT INTO "threads" VALUES(1,'telegram',7,0,'Tea',0,'2027-01-15 08:00:00.000000');
INSERT INTO "threads" VALUES(2,'telegram',7,0,NULL,1,'2027-01-15 08:00:00.000000');
CREATE TABLE turns (
	id INTEGER NOT NULL, 
	thread_id BIGINT NOT NULL, 
	replaces_id BIGINT, 
	created_at DATETIME NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	speaker_id BIGINT NOT NULL, 
	prompt TEXT NOT NULL, 
	messages TEXT, 
	estimated_tokens BIGINT NOT NULL, 
	attachment_count INTEGER NOT NULL, 
	provider TEXT, 
	model TEXT, 
	input_tokens BIGINT, 
	output_tokens BIGINT, origin VARCHAR(64), 
	CONSTRAINT pk_turns PRIMARY KEY (id), 
	CONSTRAINT fk_turns_thread_id_threads FOREIGN KEY(thread_id) REFERENCES threads (id) ON DELETE CASCADE
);
INSERT INTO "turns" VALUES(1,1,NULL,'2027-01-15 08:00:00.000000','complete',7,'[{"parts":[{"content":["What is this?",{"content":"[image]","metadata":{"attachment":"0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543"},"kind":"text-content"}],"timestamp":"2027-01-15T08:00:00Z","part_kind":"user-prompt"}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"}]','[{"parts":[{"content":["What is this?",{"content":"[image]","metadata":{"attachment":"0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543"},"kind":"text-content"}],"timestamp":"2027-01-15T08:00:00Z","part_kind":"user-prompt"}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"},{"parts":[{"tool_name":"recall","args":{},"tool_call_id":"c1","tool_kind":null,"id":null,"provider_name":null,"provider_details":null,"part_kind":"tool-call"}],"usage":{"input_tokens":0,"cache_write_tokens":0,"cache_write_1h_tokens":0,"cache_read_tokens":0,"output_tokens":0,"output_reasoning_tokens":0,"input_audio_tokens":0,"cache_audio_read_tokens":0,"output_audio_tokens":0,"audio_seconds":0.0,"details":{},"cost":null},"model_name":null,"model_id":null,"timestamp":"2027-01-15T08:00:00Z","kind":"response","provider_name":null,"provider_url":null,"canonical_system":null,"provider_details":null,"provider_response_id":null,"finish_reason":null,"run_id":null,"conversation_id":null,"metadata":null,"workspace_ref":null,"history_digest":null,"failed_attempts":null,"state":"complete"},{"parts":[{"tool_name":"recall","content":["likes tea"],"tool_call_id":"c1","tool_kind":null,"metadata":null,"timestamp":"2027-01-15T08:00:00Z","outcome":"success","retry":null,"part_kind":"tool-return","content_file_digests":[]}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"},{"parts":[{"content":"A picture.","id":null,"provider_name":null,"provider_details":null,"citations":null,"part_kind":"text"}],"usage":{"input_tokens":0,"cache_write_tokens":0,"cache_write_1h_tokens":0,"cache_read_tokens":0,"output_tokens":0,"output_reasoning_tokens":0,"input_audio_tokens":0,"cache_audio_read_tokens":0,"output_audio_tokens":0,"audio_seconds":0.0,"details":{},"cost":null},"model_name":"m","model_id":null,"timestamp":"2027-01-15T08:00:00Z","kind":"response","provider_name":null,"provider_url":null,"canonical_system":null,"provider_details":null,"provider_response_id":null,"finish_reason":"stop","run_id":null,"conversation_id":null,"metadata":null,"workspace_ref":null,"history_digest":null,"failed_attempts":null,"state":"complete"}]',34,1,'a','m',12,3,'tg-42-000000000001');
INSERT INTO "turns" VALUES(2,2,NULL,'2027-01-15 08:00:00.000000','superseded',7,'[{"parts":[{"content":"And now?","timestamp":"2027-01-15T08:00:00Z","part_kind":"user-prompt"}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"}]',NULL,6,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "turns" VALUES(3,2,2,'2027-01-15 08:00:00.000000','stopped',7,'[{"parts":[{"content":"And now?","timestamp":"2027-01-15T08:00:00Z","part_kind":"user-prompt"}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"}]','[{"parts":[{"content":"And now?","timestamp":"2027-01-15T08:00:00Z","part_kind":"user-prompt"}],"timestamp":"2027-01-15T08:00:00Z","instructions":null,"kind":"request","run_id":null,"conversation_id":null,"metadata":null,"state":"complete"},{"parts":[{"content":"Half","id":null,"provider_name":null,"provider_details":null,"citations":null,"part_kind":"text"}],"usage":{"input_tokens":0,"cache_write_tokens":0,"cache_write_1h_tokens":0,"cache_read_tokens":0,"output_tokens":0,"output_reasoning_tokens":0,"input_audio_tokens":0,"cache_audio_read_tokens":0,"output_audio_tokens":0,"audio_seconds":0.0,"details":{},"cost":null},"model_name":null,"model_id":null,"timestamp":"2027-01-15T08:00:00Z","kind":"response","provider_name":null,"provider_url":null,"canonical_system":null,"provider_details":null,"provider_response_id":null,"finish_reason":null,"run_id":null,"conversation_id":null,"metadata":null,"workspace_ref":null,"history_digest":null,"failed_attempts":null,"state":"complete"}]',11,0,'b','n',NULL,NULL,NULL);
CREATE TABLE usage_days (
	day DATE NOT NULL, 
	speaker TEXT NOT NULL, 
	chat TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	model TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	requests BIGINT NOT NULL, 
	answers BIGINT NOT NULL, 
	failures BIGINT NOT NULL, 
	estimated BIGINT NOT NULL, 
	unpriced BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_nanousd BIGINT NOT NULL, 
	CONSTRAINT pk_usage_days PRIMARY KEY (day, speaker, chat, provider, model, purpose)
);
INSERT INTO "usage_days" VALUES('2027-01-15','','','a','m','naming',1,0,1,1,0,0,0,0);
INSERT INTO "usage_days" VALUES('2027-01-15','telegram:7','telegram:7','a','m','chat',1,1,0,0,1,12,3,0);
CREATE TABLE usage_requests (
	id VARCHAR(64) NOT NULL, 
	at DATETIME NOT NULL, 
	speaker TEXT, 
	chat TEXT, 
	provider TEXT NOT NULL, 
	model TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	"end" VARCHAR(16) NOT NULL, 
	is_answer BOOLEAN NOT NULL, 
	is_failure BOOLEAN NOT NULL, 
	is_estimated BOOLEAN NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_nanousd BIGINT, 
	CONSTRAINT pk_usage_requests PRIMARY KEY (id)
);
INSERT INTO "usage_requests" VALUES('963963be3fe64988b11c638ceb08a5e3-1','2027-01-15 08:00:00.000000','telegram:7','telegram:7','a','m','chat','answered',1,0,0,12,3,NULL);
INSERT INTO "usage_requests" VALUES('963963be3fe64988b11c638ceb08a5e3-2','2027-01-15 08:00:00.000000',NULL,NULL,'a','m','naming','failed',0,1,1,0,0,0);
CREATE INDEX ix_threads_key ON threads (surface, chat_id, topic_id);
CREATE UNIQUE INDEX uq_threads_current ON threads (surface, chat_id, topic_id) WHERE is_current;
CREATE INDEX ix_turns_thread_id_id ON turns (thread_id, id);
CREATE INDEX ix_turns_speaker_id ON turns (speaker_id);
CREATE INDEX ix_answer_messages_turn_id ON answer_messages (turn_id);
CREATE INDEX ix_notes_user_id_scope ON notes (user_id, scope);
CREATE INDEX ix_audit_at ON audit (at);
CREATE INDEX ix_usage_requests_at ON usage_requests (at);
CREATE INDEX ix_usage_days_speaker_day ON usage_days (speaker, day);
CREATE INDEX ix_usage_days_chat_day ON usage_days (chat, day);
CREATE UNIQUE INDEX uq_turns_origin ON turns (origin);
CREATE INDEX ix_album_parts_created_at ON album_parts (created_at);
CREATE INDEX ix_said_created_at ON said (created_at);
CREATE INDEX ix_job_attempts_updated_at ON job_attempts (updated_at);
CREATE INDEX ix_dead_letters_failed_at ON dead_letters (failed_at);
CREATE INDEX ix_moderation_warnings_member ON moderation_warnings (group_id, member_id, at);
CREATE INDEX ix_moderation_reports_reporter ON moderation_reports (group_id, reporter_id, at);
CREATE INDEX ix_moderation_incidents_card ON moderation_incidents (card_chat_id, card_message_id);
CREATE INDEX ix_moderation_incidents_created_at ON moderation_incidents (created_at);
CREATE INDEX ix_moderation_incidents_finished_at ON moderation_incidents (finished_at);
CREATE INDEX ix_moderation_messages_album ON moderation_messages (group_id, album);
CREATE INDEX ix_moderation_messages_seen_at ON moderation_messages (seen_at);
CREATE INDEX ix_moderation_pending_due_at ON moderation_pending (due_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('dead_letters',1);
COMMIT;
