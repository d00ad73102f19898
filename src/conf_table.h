/* conf_table.h - every setting, one row each: field of struct conf, parser,
 * range check, `respool.fcgi -t` and respool.conf(5) come from here.
 * SECONDS and COUNT are integers; BYTES takes a suffix K, M or G; USD is a
 * decimal amount, here in picodollars; AUTO is a number of seconds or the word
 * auto, which is the default; STRING has
 * its shortest and longest length as min and max; WORDS is a STRING of words
 * between spaces, PATH one that is made absolute.  man/settings.awk reads the
 * rows too: one row is one CONF( ) over one or two lines.
 *
 * CONF(name, type, default, min, max, "meaning, for the man page too") */
CONF(spool_dir, PATH, SPOOL_DIR, 1, 4000,
    "The spool: a directory that the programs' user owns and nobody else can write to. Made when it is missing.")
CONF(models_file, PATH, "", 0, 4000,
    "The models file (JSON). Empty: the built-in demo models.")
CONF(base_path, STRING, "", 0, 255,
    "Cut off the front of each path before routing, as in /chat.")
CONF(static_dir, PATH, STATIC_DIR, 1, 4000,
    "Where the files of the chat page (/magic) are.")
CONF(templates_dir, PATH, "", 0, 4000,
    "Prompt templates: the files NAME.mustache of this directory. Empty: none.")
CONF(triage_file, PATH, "", 0, 4000,
    "The rules (JSON) by which a message is given a category. Empty: none.")
CONF(heartbeat, SECONDS, 15, 1, 300,
    "Silence of a model after which a heartbeat frame is appended to its stream.")
CONF(keepalive, SECONDS, 15, 1, 300,
    "Silence of a response after which a comment line is sent.")
CONF(ttl, SECONDS, 86400, 1, 31536000,
    "How long an ended stream stays, counted from its last frame.")
CONF(max_spool_bytes, BYTES, 0, 0, 1152921504606846976,
    "Bytes of the streams' files, and of the conversations' up to half of it; beyond it the oldest ended streams go before their ttl. 0: as many as there is space for.")
CONF(max_spool_files, COUNT, 0, 0, 1000000000,
    "How many streams, likewise; deleted ones do not count.")
CONF(max_streams, COUNT, 1000, 1, 100000,
    "Generations at once; beyond it new starts get 503.")
CONF(max_stream_bytes, BYTES, 16777216, 65536, 1073741824,
    "Largest stream file; a longer answer ends with the error too_long.")
CONF(max_body_bytes, BYTES, 1048576, 1024, 16777216,
    "Largest request body; a larger one gets 413.")
CONF(cors_origins, WORDS, "*", 0, 4000,
    "Origins whose pages may read answers; * means all, without credentials. With a list, starts from elsewhere get 403.")
CONF(max_connection, AUTO, auto, 0, 86400,
    "A response is ended on a frame boundary after this time, and its client comes back; 0: never; auto: 240 under mod_fcgid and as CGI, whose programs are ended by their age, else never.")
CONF(max_readers, COUNT, 0, 0, 100000,
    "Readers at once of answers that are being written; one more, and the oldest one's response is ended on a frame boundary, and its client comes back. Where a reader is a process (mod_fcgid, CGI) 5 below the number of processes. 0: as many as come.")
CONF(flush_by_close, STRING, "no", 2, 3,
    "yes: each response ends at the first pause after new frames, and its client comes back: for web servers that keep a response until it is whole.")
CONF(auth, STRING, "none", 3, 16,
    "Whose a request is: none: whose its user_id says; remote_user: whom the web server has authenticated (REMOTE_USER); jwt: the sub of its signed token (JWT).")
CONF(jwt_key_file, PATH, "", 0, 4000,
    "With auth = jwt: the file with the secret of HS256, or the public key (PEM) of RS256 or ES256.")
CONF(jwt_algorithm, STRING, "HS256", 5, 5,
    "The one algorithm that tokens may be signed with: HS256, RS256 or ES256.")
CONF(jwt_audience, STRING, "", 0, 255,
    "What a token's aud must be or contain. Empty: it is not looked at.")
CONF(jwt_cookie, STRING, "", 0, 64,
    "A cookie that may hold the token, for requests without the header Authorization. Empty: none.")
CONF(jwt_parameter, STRING, "", 0, 64,
    "A parameter that may hold the token, for EventSource, which cannot send headers; web servers log it. Empty: none.")
CONF(trusted_proxies, WORDS, "", 0, 4000,
    "Addresses and networks (10.0.0.0/8) of proxies whose X-Forwarded-For is believed.")
CONF(owner_max_streams, COUNT, 0, 0, 100000,
    "Answers at once of one owner; beyond it starts get 429. 0: no limit, here and below.")
CONF(owner_max_starts, COUNT, 0, 0, 1000000,
    "Starts of one owner in a minute.")
CONF(owner_max_tokens, COUNT, 0, 0, 1000000000000000,
    "Tokens of one owner in a day, input and output.")
CONF(owner_max_cost, USD, 0, 0, 1000000000000000000,
    "Cost of one owner in a day, in USD.")
CONF(address_max_streams, COUNT, 0, 0, 100000,
    "Answers at once of one address: of IPv6, a network of 64 bits.")
CONF(address_max_starts, COUNT, 0, 0, 1000000,
    "Starts of one address in a minute.")
CONF(address_max_tokens, COUNT, 0, 0, 1000000000000000,
    "Tokens of one address in a day.")
CONF(address_max_cost, USD, 0, 0, 1000000000000000000,
    "Cost of one address in a day, in USD.")
CONF(max_cost_per_day, USD, 0, 0, 1000000000000000000,
    "Cost of all answers in a day, in USD; beyond it nothing new is started.")
CONF(reserve_tokens, COUNT, 4096, 1, 10000000,
    "Output tokens that limits by tokens and cost reserve for an answer whose model's parameters name no maximum; while there are such limits it ends there.")
CONF(day_zone, STRING, "UTC", 1, 64,
    "The time zone whose days the limits by day mean, as in Europe/Berlin.")
CONF(metrics_from, WORDS, "127.0.0.1 ::1", 0, 4000,
    "Addresses and networks that may read /metrics; others get 404. Empty: nobody.")
CONF(personas_dir, PATH, "", 0, 4000,
    "Personas: the files ID.json of this directory. Empty: none.")
CONF(default_persona, STRING, "", 0, 64,
    "The persona of a turn that names none. Empty: such a turn is refused.")
CONF(turns_at_once, STRING, "wait", 4, 8,
    "What a turn does that is asked while its session's last one is being answered: wait for it, or get a conflict (409).")
CONF(history_tokens, COUNT, 4000, 0, 10000000,
    "How much of a session the model is told again with each turn, newest turns first; a token is counted as 4 bytes.")
CONF(session_ttl, SECONDS, 2592000, 3600, 315360000,
    "How long a conversation stays, counted from its last turn.")
CONF(idle_exit, SECONDS, 60, 1, 86400,
    "The spooler leaves after this time without a generation or a request.")
CONF(drain_timeout, SECONDS, 900, 0, 86400,
    "After SIGTERM the spooler ends the streams that are still being written after this time.")
CONF(ca_file, PATH, "", 0, 4000,
    "Certificates (PEM) that the providers' servers are checked against. Empty: the system's.")
CONF(abandon, STRING, "continue", 3, 8,
    "What becomes of an answer that nobody has read for abandon_after: continue; stop; or cap, which stops it at abandon_tokens or abandon_cost.")
CONF(abandon_after, SECONDS, 60, 1, 86400,
    "For how long nobody must have read an answer before abandon is looked at.")
CONF(abandon_tokens, COUNT, 0, 0, 1000000000,
    "With abandon = cap: output tokens, as far as they are known or estimated. 0: no such cap.")
CONF(abandon_cost, USD, 0, 0, 1000000000000000000,
    "With abandon = cap: cost in USD, estimated likewise. 0: no such cap.")
CONF(spool_shared_fs, STRING, "no", 2, 8,
    "one-host: the spool may lie on a network file system, used by one host only; no: such a spool is refused.")
CONF(spooler_program, PATH, "", 0, 4000,
    "The respool-spooler that is started on demand. Empty: the one beside the running program, else the installed one.")
CONF(sandbox, STRING, "no", 2, 3,
    "yes: the spooler restricts itself (Linux 5.13 and later) to the spool, the files that it needs, and what the system has for all; so are the commands of exec models.")
CONF(log_level, STRING, "info", 4, 5,
    "How urgent a line must be to be logged: error, warn, info or debug.")
CONF(log_file, PATH, "", 0, 4000,
    "Where log lines are appended. Empty: standard error, which a spooler started on demand does not have.")
CONF(syslog, STRING, "no", 2, 3,
    "yes: log lines go to syslog (facility daemon), and not to log_file.")
