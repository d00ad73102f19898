/* metrics_table.h - what is counted, one row each; docs/OPERATIONS.md has the
 * same rows, and a test compares them.
 *
 * METRIC(name, kind, label, meaning): /metrics calls it respool_NAME.
 * kind: counter, gauge or histogram (of seconds).  label: NONE, or one of
 * metrics.h's, whose values have a cell each.
 * FACT(name, meaning): a gauge that the mutator keeps, and that stays when no
 * process lives.
 * OTHER(name, kind, meaning): put together by metrics_text.c. */

/* Streams: counted by spoolers, and by whoever seals. */
METRIC(streams_started_total, counter, NONE, "Streams that were begun.")
METRIC(streams_total, counter, RESULT, "Streams that have ended: finished; failed, with an error; stopped on request or because nobody read; lost, as their writer died or was told to go.")
METRIC(streams_abandoned_total, counter, NONE, "Times that nobody had read a stream for abandon_after, whatever became of it then.")
METRIC(errors_total, counter, FRAME_TYPE, "Streams that ended with an error, by error_type.")
METRIC(upstream_retries_total, counter, NONE, "Attempts at a model that failed and were repeated.")
METRIC(upstream_fallbacks_total, counter, NONE, "Times that a failing model was given up for one of its fallback list.")
METRIC(first_token_seconds, histogram, NONE, "From taking a start to its first content, the model's waiting time included.")
METRIC(chunk_gap_seconds, histogram, NONE, "Between two pieces of a stream's content, as the model sends them.")
METRIC(generations_live, gauge, NONE, "Streams that are being written.")

/* Responses: counted by responders. */
METRIC(starts_refused_total, counter, REPLY_TYPE, "Starts that were refused, by error_type.")
METRIC(joins_total, counter, NONE, "Requests that began at the first frame of a stream that was there already.")
METRIC(resumes_total, counter, NONE, "Requests that went on behind a cursor.")
METRIC(replays_total, counter, NONE, "Joins and resumes of streams that had ended before.")
METRIC(resume_seconds, histogram, NONE, "From taking a request with a cursor to its first frame on the way.")
METRIC(events_sent_total, counter, NONE, "Frames that were written to clients.")
METRIC(sent_bytes_total, counter, NONE, "Bytes of frames and comments that were written to clients.")
METRIC(slow_readers_total, counter, NONE, "Responses whose client once took nothing for 2 seconds while there was something to send.")
METRIC(http_responses_total, counter, CODE, "Responses by HTTP status, streams included.")
METRIC(open_streams, gauge, NONE, "Responses that are following a stream.")

FACT(spool_bytes, "Bytes of streams and conversations in the spool.")
FACT(spool_files, "Streams in the spool.")

OTHER(tokens_total, counter, "Tokens of settled streams, by model and kind (input without what a cache read or wrote).")
OTHER(cost_usd_total, counter, "Cost of settled streams in USD, by model, where prices and usage are known.")
OTHER(spool_free_bytes, gauge, "Space that the spool's file system has left.")
OTHER(metrics_shared, gauge, "1: these are the sums over all processes; 0: of the answering one only, which cannot have SPOOL/metrics.")
OTHER(build_info, gauge, "1, for the version of the program that answers.")
