//! The sentences that are stored, or told of what is stored, each with its code: why a line or a file was not taken, why a
//! sync rests, why a job came to nothing. The console's catalogue has each of them as `why.<code>`, which a test compares.

use crate::said::Saying;

macro_rules! sayings {
    ($($(#[$about:meta])* $name:ident = $code:literal, $english:literal;)*) => {
        $($(#[$about])* pub const $name: Saying = Saying { code: $code, english: $english };)*

        /// All of them.
        pub const ALL: &[Saying] = &[$($name),*];
    };
}

sayings! {
    // Lines and entries that could not be taken.

    /// Audience Manager's files: fewer than three columns.
    ROW_TOO_FEW = "row_too_few", "too few columns: expected MCID<TAB>segments<TAB>removed segments";
    /// More than three.
    ROW_TOO_MANY = "row_too_many", "too many columns: expected MCID<TAB>segments<TAB>removed segments";
    /// Which column is empty cannot be told.
    ROW_AMBIGUOUS = "row_ambiguous",
        "ambiguous: with a template of spaces an empty column cannot be told: ask Adobe for a TAB template";
    /// A list of segments with spaces, in a template of spaces.
    ROW_SPACED_LIST = "row_spaced_list",
        "ambiguous: with a template of spaces a list cannot hold spaces itself: ask Adobe for a TAB template";
    /// The first column holds no ECID.
    ROW_NO_ECID = "row_no_ecid", "column 1 (MCID): expected an ECID of 38 digits";
    /// The second holds no segment.
    ROW_NO_SEGMENT = "row_no_segment", "column 2 (segments): expected segment ids, separated by commas";
    /// The third holds none.
    ROW_NO_REMOVED = "row_no_removed", "column 3 (removed segments): expected segment ids, separated by commas";
    /// A line that has no end.
    ROW_TOO_LONG = "row_too_long", "longer than 1 MiB: expected one user a line";
    /// CSV: a record that has no end.
    RECORD_TOO_LONG = "record_too_long",
        "longer than 1 MiB or 10,000 columns: expected one profile a row; is a quote left open?";
    /// CSV: a quote that is left open.
    RECORD_OPEN_QUOTE = "record_open_quote", "a quoted value has no end: expected a second quote";
    /// CSV: fewer columns than the header.
    RECORD_TOO_FEW = "record_too_few", "too few columns: expected as many as the header has";
    /// CSV: more.
    RECORD_TOO_MANY = "record_too_many",
        "too many columns: expected as many as the header has; is a quote missing?";
    /// CSV: no ECID.
    RECORD_NO_ECID = "record_no_ecid", "column {column} (ECID): expected an ECID of 38 digits";
    /// CSV: an ECID that a spreadsheet has made a number of.
    RECORD_REWRITTEN = "record_rewritten",
        "column {column} (ECID): a number that a spreadsheet has rewritten, such as 1.2E+37: expected an ECID of 38 digits, as text";
    /// CSV: an ECID that lacks leading zeros.
    RECORD_SHORT = "record_short",
        "column {column} (ECID): fewer than 38 digits: expected an ECID; a spreadsheet drops leading zeros";
    /// CSV: no status. Its English names the literals of the feed's settings besides.
    RECORD_NO_STATUS = "record_no_status", "column {column} (status): empty";
    /// CSV: a status that the feed's settings do not name; likewise.
    RECORD_STATUS = "record_status", "column {column} (status): unknown";
    /// JSON: something that is no object.
    PROFILE_NO_OBJECT = "profile_no_object", "expected a profile: a JSON object";
    /// JSON: a profile that has no end.
    PROFILE_TOO_LONG = "profile_too_long", "longer than 1 MiB: expected a profile";
    /// JSON: too many entries of one profile.
    PROFILE_TOO_MANY = "profile_too_many",
        "more than 125,000 entries (ECIDs times memberships) in one profile";
    /// JSON: a profile without an ECID.
    PROFILE_NO_ECID = "profile_no_ecid",
        "no ECID: expected identityMap with the namespace ECID, or the field that the feed declares as ecid_column";
    /// JSON: a profile that ends with its line and is not whole.
    PROFILE_BROKEN = "profile_broken", "a profile has no end on its line: expected a JSON object";
    /// JSON: no status that the feed's settings name. Its English names the literals besides.
    PROFILE_STATUS = "profile_status", "status: missing or unknown";
    /// JSON: no membership by an audience's id.
    PROFILE_NO_UUID = "profile_no_uuid", "segmentMembership: expected an audience by its UUID";
    /// JSON: a membership of another shape.
    PROFILE_MEMBERSHIP = "profile_membership",
        "segmentMembership: expected an object with one object for each namespace";
    /// JSON: an identity that is no ECID.
    PROFILE_NOT_AN_ECID = "profile_not_an_ecid", "identityMap: expected an ECID of 38 digits";
    /// JSON: an ECID as a number.
    PROFILE_NOT_A_TEXT = "profile_not_a_text",
        "identityMap: expected an ECID of 38 digits as a string, not as a number";
    /// Experience Platform's stream: a profile without an ECID.
    STREAM_NO_ECID = "stream_no_ecid",
        "identityMap: no ECID: map the identity namespace ECID in the destination";
    /// A status of another name.
    STREAM_MEMBERSHIP_STATUS = "stream_membership_status",
        "segmentMembership: status: expected realized, existing or exited";
    /// A time of another form.
    STREAM_MEMBERSHIP_TIME = "stream_membership_time",
        "segmentMembership: lastQualificationTime: expected a time such as 2026-01-02T03:04:05Z";
    /// More entries than a message may have.
    STREAM_TOO_MANY = "stream_too_many",
        "more than 125,000 entries (ECIDs times memberships) in one message";
    /// Audience Manager's stream: a user without an ECID.
    STREAM_USER_NO_ECID = "stream_user_no_ecid",
        "{field}: expected an ECID, a string of 38 digits; the feed's ecid_field says which field carries it, AAM_UUID or DataPartner_UUID";
    /// A user without segments.
    STREAM_NO_SEGMENTS = "stream_no_segments", "Segments: expected a list of segments";
    /// A segment that is not told by its id.
    STREAM_SEGMENT_ID = "stream_segment_id",
        "Segment_ID: expected a segment's id, a number: map segments by their id in the destination";
    /// A status that is no digit.
    STREAM_STATUS = "stream_status", "Status: expected 1 (in) or 0 (out)";
    /// A time of another form.
    STREAM_TIME = "stream_time", "DateTime: expected a time such as Fri Jan 02 03:04:05 UTC 2026";
    /// An audience that nobody knows.
    UNKNOWN_AUDIENCE = "unknown_audience", "an audience that the audience library does not hold";

    // Files that were refused, wait, or were not whole.

    /// The same for a line and for a file: nothing tells the audience.
    NO_AUDIENCE = "no_audience",
        "no audience: neither the file's name, nor its folder, nor its content tells one: put %SEGMENT_ID% into the folder or the name of the export, or declare the feed with exactly one audience";
    /// The same for both: which status counts cannot be told.
    SEVERAL_STATUSES = "several_statuses",
        "several columns could hold the status: declare the feed's status_column";
    /// No column with the ECID.
    FILE_NO_ECID_COLUMN = "file_no_ecid_column",
        "no column with the ECID: expected a header with a column that is named ECID or ends in .ECID, such as identityMap.ECID: map it in the destination, or declare the feed's ecid_column";
    /// No column of the declared name.
    FILE_NO_DECLARED_ECID = "file_no_declared_ecid",
        "no column with the ECID: expected a header with a column named {column}, as the feed is declared";
    /// No status of the declared name.
    FILE_NO_DECLARED_STATUS = "file_no_declared_status",
        "no column with the status: expected a header with a column named {column}, as the feed is declared";
    /// A file in the folder of a stream.
    FILE_OF_STREAM = "file_of_stream",
        "not a file for us: it is a stream and takes no files. This folder is the feed {feed}'s; files of another feed belong into the folder of its name";
    /// A name that is not Audience Manager's.
    FILE_NAME_AAM = "file_name_aam",
        "not a file for us: expected a name that ends in _full_<time>.sync or _iter_<time>.sync (or .sync.gz), with a time of 10 or 13 digits. This folder is the feed {feed}'s; files of another feed belong into the folder of its name";
    /// The name of a control file that is not Audience Manager's.
    FILE_NAME_CONTROL = "file_name_control",
        "not a file for us: expected a name that ends in _full_<time>.info or _iter_<time>.info, with a time of 10 or 13 digits. This folder is the feed {feed}'s; files of another feed belong into the folder of its name";
    /// A name that is not Experience Platform's.
    FILE_NAME_AEP = "file_name_aep",
        "not a file for us: expected a name that ends in .csv or .json (or .csv.gz, .json.gz). This folder is the feed {feed}'s; files of another feed belong into the folder of its name";
    /// It was gone.
    FILE_GONE = "file_gone", "the file was gone before it was read";
    /// A control file or manifest that is no UTF-8.
    CONTROL_NO_TEXT = "control_no_text", "the control file cannot be read: expected UTF-8 text";
    /// One that is no JSON.
    CONTROL_NO_JSON = "control_no_json",
        "the control file cannot be read: line {line}: not JSON: expected an object with the names and the sizes of files";
    /// One whose field is missing or wrong. Its English says what was expected besides.
    CONTROL_FIELD = "control_field", "the control file cannot be read: {field} is missing or wrong";
    /// An operator dropped it.
    FILE_DROPPED = "file_dropped", "dropped by an operator";
    /// A control file that does not name it.
    FILE_NOT_NAMED = "file_not_named", "its delivery's control file does not name it";
    /// Nothing is in it.
    FILE_EMPTY = "file_empty", "the file is empty";
    /// Nothing is in it but a beginning.
    FILE_EMPTY_CUT = "file_empty_cut", "the file is not whole: its compressed data end too early";
    /// Nothing is in it, and something should be.
    FILE_EMPTY_SIZE = "file_empty_size",
        "the file is not whole: it has another size than its control file says";
    /// One part, where one file was to be all.
    PART_OF_SEVERAL = "part_of_several",
        "this is one part of several, and the feed's completeness is single-file: its rows were taken, and nobody left on its account. Set the feed's completeness to info, manifest or quiet-period";
    /// Parts never came.
    NEVER_WHOLE = "never_whole",
        "the delivery never became whole: its rows were taken, and nobody left on its account";
    /// Waits for the control file.
    WAITS_FOR_CONTROL = "waits_for_control", "its control file has not come";
    /// Waits for files that the control file names.
    WAITS_FOR_FILES = "waits_for_files",
        "{count} of the files that its control file names have not come";
    /// Waits for parts.
    WAITS_FOR_PARTS = "waits_for_parts", "{count} part(s) before the last one have not come";
    /// Waits for a while.
    WAITS_FOR_MORE = "waits_for_more", "further parts may come";
    /// Not whole: cut.
    NOT_WHOLE_CUT = "not_whole_cut",
        "the file is not whole (its compressed data end too early): its rows were taken, and nobody left on its account";
    /// Not whole: of another size.
    NOT_WHOLE_SIZE = "not_whole_size",
        "the file is not whole (it has another size than its control file says): its rows were taken, and nobody left on its account";
    /// Not whole: a record is gone.
    NOT_WHOLE_RECORD = "not_whole_record",
        "the file is not whole (the record of a part is gone): its rows were taken, and nobody left on its account";
    /// Not whole: a part cannot be read.
    NOT_WHOLE_PART = "not_whole_part",
        "the file is not whole (a part of it cannot be read): its rows were taken, and nobody left on its account";
    /// Not whole: rows cannot be read.
    NOT_WHOLE_ROWS = "not_whole_rows",
        "the file is not whole ({unreadable} of {rows} rows cannot be read): its rows were taken, and nobody left on its account";
    /// Not whole: other than the control file tells.
    NOT_WHOLE_LINES = "not_whole_lines",
        "the file is not whole (its control file tells of {told} lines, and the files have {lines}): its rows were taken, and nobody left on its account";
    /// Audience Manager's ids meet nobody.
    IDS_MEET_NOBODY_AAM = "ids_meet_nobody_aam",
        "these look like Audience Manager UUIDs and not ECIDs: of {looked} of the delivery's ids none meets any of at least {matches} recent matches of this subscription. Ask Adobe to key the destination's files by MCID (the Experience Cloud ID) and not by UUID, then drop this delivery. If they are ECIDs, apply it";
    /// Experience Platform's ids meet nobody.
    IDS_MEET_NOBODY_AEP = "ids_meet_nobody_aep",
        "these look like Audience Manager UUIDs and not ECIDs: of {looked} of the delivery's ids none meets any of at least {matches} recent matches of this subscription. Ask whoever set the destination up to map the identity namespace ECID to the column of ids, then drop this delivery. If they are ECIDs, apply it";
    /// Invocations ended before all was counted.
    TOO_LARGE_TO_COUNT = "too_large_to_count",
        "the delivery is too large: {turns} invocations in a row ended before one of its files was counted. Nothing of it was taken. Give the function scheduled-incremental-sync more memory, with which it is faster, too, then apply the delivery; or drop it, and ask Adobe for smaller files";
    /// Invocations ended before the next group of entries was taken.
    TOO_LARGE_TO_TAKE = "too_large_to_take",
        "the delivery is too large: {turns} invocations in a row came no further than {taken} of its {entries} entries. Give the function scheduled-incremental-sync more memory, with which it is faster, too, then apply the delivery: it goes on where it is. Or drop what is left of it, and ask Adobe to spread the segments over several destinations";

    // Subscriptions and syncs that rest.

    /// The instance must not be used.
    HIPAA = "hipaa",
        "this Marketo subscription is marked HIPAA-ready: this integration must not be used with it";
    /// No organisation is mapped.
    NO_ORGANISATION = "no_org", "no IMS organisation is mapped to this Marketo subscription";
    /// Cookie sync is off.
    COOKIE_SYNC_OFF = "cookie_sync_off", "cookie sync is off for this subscription";
    /// An operator paused it.
    PAUSED_BY_HAND = "paused_by_hand", "paused by an operator";
    /// An operator stopped it.
    STOPPED_BY_HAND = "stopped_by_hand", "stopped by an operator";
    /// The list is gone.
    LIST_GONE = "list_gone", "the list does not exist in Marketo any more (code 1013)";
    /// The audience is gone from Audience Manager.
    AUDIENCE_DELETED_AAM = "audience_deleted_aam",
        "the audience \"{name}\" ({audience}) was deleted in Audience Manager; nobody was taken out of the list. Choose another audience with a new sync";
    /// The audience is gone from Experience Platform.
    AUDIENCE_DELETED_AEP = "audience_deleted_aep",
        "the audience \"{name}\" ({audience}) was deleted in Experience Platform; nobody was taken out of the list. Choose another audience with a new sync";
    /// It was stopped before it began.
    STOPPED_WITHOUT_LIST = "stopped_without_list", "the sync was stopped before its list was made";

    // Mass changes that are held.

    /// Many would leave.
    HELD_REMOVALS = "held_removals",
        "{removals} of the {of} people whom we may take out of the list would leave it";
    /// Many would leave, and some have.
    HELD_REMOVALS_AFTER = "held_removals_after",
        "{removals} of the {of} people whom we may take out of the list would leave it, after {recent} within the last 24 hours";
    /// Many would join.
    HELD_ADDITIONS = "held_additions", "{additions} people would join a list of {of}";
    /// Many would join, and some have.
    HELD_ADDITIONS_AFTER = "held_additions_after",
        "{additions} people would join a list of {of}, after {recent} within the last 24 hours";

    // Jobs that came to nothing.

    /// A list's members cannot be read.
    MEMBERS_REFUSED = "members_refused",
        "Marketo refused to show the members of the list, with code {code} (its request id: {request_id})";
    /// Nobody asked for an answer.
    READING_EXPIRED = "reading_expired",
        "nobody asked for the answer for a day, and what was read has expired: please begin anew";
    /// It took too long.
    READING_TOO_LONG = "reading_too_long", "the list could not be read for days: please begin anew";
    /// A file is gone.
    DOWNLOAD_EXPIRED = "download_expired", "a day has passed: please ask for the file anew";
    /// Nobody to count.
    NOT_DELIVERED = "not_delivered",
        "no delivery has named this audience yet, so there is nobody to count: a sync begins with the first one";
    /// It could not be counted.
    NOT_COUNTED = "not_counted", "the audience could not be counted; please ask again";
    /// Marketo does not say who is there.
    MEMBERSHIP_REFUSED = "membership_refused",
        "Marketo refused to say who is in the list, with code {code} (its request id: {request_id})";

    // Settings that are not imported.

    /// No import takes the mark back.
    IMPORT_HIPAA = "import_hipaa",
        "the subscription is marked HIPAA-ready: no import takes that back, only PUT /subscription does";
    /// A feed is of one kind for good.
    IMPORT_FEED_KIND = "import_feed_kind", "a feed keeps its kind: give the other one another id";
    /// It takes longer than one request.
    IMPORT_TIME_OVER = "import_time_over",
        "the time of this request is over: send it again, and it goes on from here";
    /// Who leaves cannot be changed.
    IMPORT_LEAVING = "import_leaving",
        "leaving of a sync cannot be changed: stop it and make a new one";
    /// What happens to people of before cannot be changed.
    IMPORT_MEMBERS_BEFORE = "import_members_before",
        "members_before of a sync cannot be changed: stop it and make a new one";
    /// Neither can be changed.
    IMPORT_BOTH = "import_both",
        "leaving and members_before of a sync cannot be changed: stop it and make a new one";
    /// A member of the export is wrong.
    IMPORT_PAUSED = "import_paused", "{field}: expected true or false";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_plain_and_stand_once() {
        let codes: BTreeSet<&str> = ALL.iter().map(|saying| saying.code).collect();
        assert_eq!(codes.len(), ALL.len());
        let plain = |code: &&str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(codes.iter().all(plain), "{codes:?}");
    }
}
