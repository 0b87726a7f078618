//! Messages of etcd's API, version 3, as far as a store needs them.
//!
//! Field numbers, types and names are those of etcd's API reference (`etcdserverpb`, `mvccpb`), which never change within version
//! 3. They are written by hand, so that building the crate needs no compiler of `.proto` files. A field of the reference that
//! is missing here is never sent, and is skipped when a member sends it, as proto3 demands. Adding one takes its number from the
//! reference and a line in the golden tests below.
//!
//! Nothing here does I/O: [`connection`](crate::connection) sends and receives these messages.

use std::fmt;

use prost::{Enumeration, Message, Oneof};

/// State of the cluster at the time of a response.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct ResponseHeader {
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// A key and its value. `lease` (6) is left out: a store grants none.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(crate) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    /// Number of writes since the key was created; 0 in the event of its delete.
    #[prost(int64, tag = "4")]
    pub(crate) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) value: Vec<u8>,
}

/// Reads keys. Always linearizable: `serializable` (7) is left out.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// First key behind the range; empty: the one key.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    /// Most keys in the response; 0: all.
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
    /// Revision to read at; 0: the newest.
    #[prost(int64, tag = "4")]
    pub(crate) revision: i64,
    #[prost(bool, tag = "8")]
    pub(crate) keys_only: bool,
    #[prost(bool, tag = "9")]
    pub(crate) count_only: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
    /// `true` if the limit cut the response short.
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
    /// Number of keys in the whole range, beyond the limit as well.
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// First key behind the range; empty: the one key.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
}

/// An operation of a transaction. Nested transactions (4) are not used.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RequestOp {
    #[prost(oneof = "Operation", tags = "1, 2, 3")]
    pub(crate) request: Option<Operation>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Operation {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

/// The response to one operation. Only reads (1) carry something that a store uses; the others leave it empty, and keep its position.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub(crate) range: Option<RangeResponse>,
}

/// A condition of a transaction on one key.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Compare {
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub(crate) result: i32,
    /// Names the field that [`Compared`] holds: both are sent.
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub(crate) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(oneof = "Compared", tags = "5, 6, 7")]
    pub(crate) compared: Option<Compared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum CompareResult {
    Equal = 0,
    Greater = 1,
    Less = 2,
    NotEqual = 3,
}

/// `VERSION` (0) and `LEASE` (4) are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum CompareTarget {
    Version = 0,
    Create = 1,
    Mod = 2,
    Value = 3,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Compared {
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

/// A transaction: the operations of `success` if all conditions hold, else those of `failure`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
    /// One for each operation that was carried out, in their order.
    #[prost(message, repeated, tag = "3")]
    pub(crate) responses: Vec<ResponseOp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
    /// The member answers once the history is removed from its database.
    #[prost(bool, tag = "2")]
    pub(crate) physical: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CompactionResponse {}

/// A request on the stream of a watch. `cancel_request` (2) is not used: a watch ends with its stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WatchRequest {
    #[prost(oneof = "WatchOperation", tags = "1, 3")]
    pub(crate) request: Option<WatchOperation>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum WatchOperation {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// First key behind the range; empty: the one key.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    /// First revision whose events are sent; 0: the next one.
    #[prost(int64, tag = "3")]
    pub(crate) start_revision: i64,
    /// Requests a message without events from time to time, with the member's progress.
    #[prost(bool, tag = "4")]
    pub(crate) progress_notify: bool,
    #[prost(bool, tag = "6")]
    pub(crate) prev_kv: bool,
    /// Lets the member cut the events of one revision into several messages.
    #[prost(bool, tag = "8")]
    pub(crate) fragment: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct WatchProgressRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    /// -1 in a progress message that was asked for: it is about all watches of the stream.
    #[prost(int64, tag = "2")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    /// Oldest revision that can be watched, if the watch began before it; else 0.
    #[prost(int64, tag = "5")]
    pub(crate) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    /// `true` if the next message goes on with the same revision.
    #[prost(bool, tag = "7")]
    pub(crate) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Event {
    #[prost(enumeration = "EventType", tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub(crate) prev_kv: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum EventType {
    Put = 0,
    Delete = 1,
}

/// Without `Debug` of its fields: no secret is ever printed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

/// Without `Debug` of its field: a token is as good as a password while it lasts.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct StatusRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StatusResponse {
    /// Version of the member's program, such as `3.4.23`.
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct SnapshotRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SnapshotResponse {
    #[prost(uint64, tag = "2")]
    pub(crate) remaining_bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) blob: Vec<u8>,
}

impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateResponse").finish_non_exhaustive()
    }
}

impl RangeRequest {
    /// Reads one key.
    pub(crate) fn key(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// Reads the keys from the first to before the second.
    pub(crate) fn between(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Self { key: from.into(), range_end: to.into(), ..Self::default() }
    }

    pub(crate) fn at(self, revision: i64) -> Self {
        Self { revision, ..self }
    }

    pub(crate) fn limit(self, limit: i64) -> Self {
        Self { limit, ..self }
    }

    pub(crate) fn keys_only(self) -> Self {
        Self { keys_only: true, ..self }
    }

    pub(crate) fn count_only(self) -> Self {
        Self { count_only: true, ..self }
    }
}

impl From<RangeRequest> for RequestOp {
    fn from(range: RangeRequest) -> Self {
        Self { request: Some(Operation::Range(range)) }
    }
}

impl RequestOp {
    pub(crate) fn get(key: impl Into<Vec<u8>>) -> Self {
        RangeRequest::key(key).into()
    }

    pub(crate) fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { request: Some(Operation::Put(PutRequest { key: key.into(), value: value.into() })) }
    }

    pub(crate) fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self::delete_between(key, [])
    }

    pub(crate) fn delete_between(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        let delete = DeleteRangeRequest { key: from.into(), range_end: to.into() };
        Self { request: Some(Operation::DeleteRange(delete)) }
    }
}

impl Compare {
    pub(crate) fn mod_revision(key: impl Into<Vec<u8>>, result: CompareResult, revision: i64) -> Self {
        Self::new(key, result, CompareTarget::Mod, Compared::ModRevision(revision))
    }

    pub(crate) fn create_revision(key: impl Into<Vec<u8>>, result: CompareResult, revision: i64) -> Self {
        Self::new(key, result, CompareTarget::Create, Compared::CreateRevision(revision))
    }

    pub(crate) fn value(key: impl Into<Vec<u8>>, result: CompareResult, value: impl Into<Vec<u8>>) -> Self {
        Self::new(key, result, CompareTarget::Value, Compared::Value(value.into()))
    }

    fn new(key: impl Into<Vec<u8>>, result: CompareResult, target: CompareTarget, compared: Compared) -> Self {
        Self { result: result.into(), target: target.into(), key: key.into(), compared: Some(compared) }
    }
}

impl TxnRequest {
    /// A transaction without conditions.
    pub(crate) fn of(operations: impl Into<Vec<RequestOp>>) -> Self {
        Self { success: operations.into(), ..Self::default() }
    }

    /// A transaction under these conditions, of which all must hold.
    pub(crate) fn when(conditions: impl Into<Vec<Compare>>) -> Self {
        Self { compare: conditions.into(), ..Self::default() }
    }

    pub(crate) fn and_then(self, operations: impl Into<Vec<RequestOp>>) -> Self {
        Self { success: operations.into(), ..self }
    }

    pub(crate) fn or_else(self, operations: impl Into<Vec<RequestOp>>) -> Self {
        Self { failure: operations.into(), ..self }
    }
}

impl From<WatchCreateRequest> for WatchRequest {
    fn from(create: WatchCreateRequest) -> Self {
        Self { request: Some(WatchOperation::Create(create)) }
    }
}

impl WatchRequest {
    pub(crate) fn progress() -> Self {
        Self { request: Some(WatchOperation::Progress(WatchProgressRequest {})) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes worked out from the encoding rules of protobuf and the numbers of the API reference: key of the field (its number
    /// times eight, plus the kind of its bytes), length where there is one, value.
    fn requests() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
        let between = RangeRequest::between("a", "b").limit(1000).at(7).keys_only();
        let txn = TxnRequest::when([Compare::mod_revision("k", CompareResult::Equal, 5)])
            .and_then([RequestOp::put("k", "v")])
            .or_else([RequestOp::get("k")]);
        let create = WatchCreateRequest {
            key: b"a".to_vec(),
            range_end: b"b".to_vec(),
            start_revision: 7,
            progress_notify: true,
            prev_kv: true,
            fragment: true,
        };
        let credentials = AuthenticateRequest { name: "u".to_owned(), password: "p".to_owned() };
        vec![
            ("range", between.encode_to_vec(), b"\x0a\x01a\x12\x01b\x18\xe8\x07\x20\x07\x40\x01"),
            ("count", RangeRequest::key("k").count_only().encode_to_vec(), b"\x0a\x01k\x48\x01"),
            ("put", RequestOp::put("k", "v").encode_to_vec(), b"\x12\x06\x0a\x01k\x12\x01v"),
            // An empty value is the default, and is not sent.
            ("put nothing", RequestOp::put("k", "").encode_to_vec(), b"\x12\x03\x0a\x01k"),
            ("delete", RequestOp::delete("k").encode_to_vec(), b"\x1a\x03\x0a\x01k"),
            ("delete range", RequestOp::delete_between("a", "b").encode_to_vec(), b"\x1a\x06\x0a\x01a\x12\x01b"),
            (
                "txn",
                txn.encode_to_vec(),
                b"\x0a\x07\x10\x02\x1a\x01k\x30\x05\x12\x08\x12\x06\x0a\x01k\x12\x01v\x1a\x05\x0a\x03\x0a\x01k",
            ),
            // A zero in a choice is sent: without it, members would compare with nothing.
            (
                "is absent",
                Compare::mod_revision("k", CompareResult::Equal, 0).encode_to_vec(),
                b"\x10\x02\x1a\x01k\x30\x00",
            ),
            (
                "was created",
                Compare::create_revision("k", CompareResult::Greater, 0).encode_to_vec(),
                b"\x08\x01\x10\x01\x1a\x01k\x28\x00",
            ),
            (
                "was created before",
                Compare::create_revision("k", CompareResult::Less, 9).encode_to_vec(),
                b"\x08\x02\x10\x01\x1a\x01k\x28\x09",
            ),
            (
                "holds something else",
                Compare::value("k", CompareResult::NotEqual, "g").encode_to_vec(),
                b"\x08\x03\x10\x03\x1a\x01k\x3a\x01g",
            ),
            (
                "watch",
                WatchRequest::from(create).encode_to_vec(),
                b"\x0a\x0e\x0a\x01a\x12\x01b\x18\x07\x20\x01\x30\x01\x40\x01",
            ),
            ("progress", WatchRequest::progress().encode_to_vec(), b"\x1a\x00"),
            ("authenticate", credentials.encode_to_vec(), b"\x0a\x01u\x12\x01p"),
            ("compact", CompactionRequest { revision: 7, physical: true }.encode_to_vec(), b"\x08\x07\x10\x01"),
            ("status", StatusRequest {}.encode_to_vec(), b""),
            ("snapshot", SnapshotRequest {}.encode_to_vec(), b""),
        ]
    }

    #[test]
    fn requests_have_the_bytes_of_the_reference() {
        for (name, encoded, expected) in requests() {
            assert_eq!(encoded, expected, "{name}");
        }
    }

    #[test]
    fn a_response_to_a_transaction_is_read_and_the_rest_of_it_is_skipped() {
        // Header: cluster 5, member 6, revision 9, term 2. Responses: a put with its header, a read, a delete of one key. The key
        // that was read has a lease, 4.
        let bytes = b"\x0a\x08\x08\x05\x10\x06\x18\x09\x20\x02\x10\x01\
            \x1a\x06\x12\x04\x0a\x02\x18\x09\
            \x1a\x12\x0a\x10\x12\x0e\x0a\x01k\x10\x03\x18\x08\x20\x02\x2a\x01v\x30\x04\
            \x1a\x04\x1a\x02\x10\x01";
        let response = TxnResponse::decode(&bytes[..]).unwrap();
        assert_eq!((response.header.map(|header| header.revision), response.succeeded), (Some(9), true));
        let [put, range, delete] = &response.responses[..] else { panic!("{response:?}") };
        assert_eq!((put.range.as_ref(), delete.range.as_ref()), (None, None));
        let kv = KeyValue { key: b"k".to_vec(), create_revision: 3, mod_revision: 8, version: 2, value: b"v".to_vec() };
        assert_eq!(range.range, Some(RangeResponse { kvs: vec![kv], ..RangeResponse::default() }));
    }

    #[test]
    fn other_responses_are_read() {
        let range = RangeResponse::decode(&b"\x0a\x02\x18\x09\x18\x01\x20\xac\x02"[..]).unwrap();
        assert_eq!((range.header.map(|header| header.revision), range.more, range.count), (Some(9), true, 300));

        // A progress message that was asked for: watch -1.
        let progress =
            WatchResponse::decode(&b"\x0a\x02\x18\x09\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..]).unwrap();
        assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
        let cancelled = WatchResponse::decode(&b"\x18\x01\x20\x01\x28\x07\x32\x02no"[..]).unwrap();
        assert!(cancelled.created && cancelled.canceled);
        assert_eq!((cancelled.compact_revision, cancelled.cancel_reason.as_str()), (7, "no"));
        let events = WatchResponse::decode(&b"\x38\x01\x5a\x0c\x08\x01\x12\x03\x0a\x01k\x1a\x03\x0a\x01p\x5a\x00"[..]);
        let events = events.unwrap();
        assert!(events.fragment);
        let [delete, put] = &events.events[..] else { panic!("{events:?}") };
        assert_eq!((delete.kind(), put.kind()), (EventType::Delete, EventType::Put));
        assert_eq!(delete.kv.as_ref().unwrap().key, b"k");
        assert_eq!(delete.prev_kv.as_ref().unwrap().key, b"p");

        assert_eq!(AuthenticateResponse::decode(&b"\x0a\x00\x12\x01t"[..]).unwrap().token, "t");
        assert_eq!(StatusResponse::decode(&b"\x0a\x00\x12\x03\x33.4\x18\x01"[..]).unwrap().version, "3.4");
        let snapshot = SnapshotResponse::decode(&b"\x10\x05\x1a\x02ab"[..]).unwrap();
        assert_eq!((snapshot.remaining_bytes, &snapshot.blob[..]), (5, &b"ab"[..]));
    }

    #[test]
    fn no_secret_is_shown() {
        let request = AuthenticateRequest { name: "u".to_owned(), password: "hunter2".to_owned() };
        let response = AuthenticateResponse { token: "hunter2".to_owned() };
        assert!(!format!("{request:?} {response:?}").contains("hunter2"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        // Groups of an unknown field in each other, as deep as a message can be long.
        assert!(TxnResponse::decode(&vec![0x7b; 1 << 20][..]).is_err());
    }

    /// Decodes as everything that a member sends.
    fn decode_all(bytes: &[u8]) {
        let _ = TxnResponse::decode(bytes);
        let _ = RangeResponse::decode(bytes);
        let _ = WatchResponse::decode(bytes);
        let _ = AuthenticateResponse::decode(bytes);
        let _ = StatusResponse::decode(bytes);
        let _ = SnapshotResponse::decode(bytes);
    }

    fn key_values() -> impl Strategy<Value = KeyValue> {
        any::<(Vec<u8>, i64, i64, i64, Vec<u8>)>().prop_map(|(key, create_revision, mod_revision, version, value)| {
            KeyValue { key, create_revision, mod_revision, version, value }
        })
    }

    fn headers() -> impl Strategy<Value = Option<ResponseHeader>> {
        prop::option::of(any::<i64>().prop_map(|revision| ResponseHeader { revision }))
    }

    fn operations() -> impl Strategy<Value = Vec<RequestOp>> {
        let range = any::<(Vec<u8>, Vec<u8>, i64, i64, bool, bool)>().prop_map(
            |(key, range_end, limit, revision, keys_only, count_only)| {
                RangeRequest { key, range_end, limit, revision, keys_only, count_only }.into()
            },
        );
        let put = any::<(Vec<u8>, Vec<u8>)>().prop_map(|(key, value)| RequestOp::put(key, value));
        let delete = any::<(Vec<u8>, Vec<u8>)>().prop_map(|(from, to)| RequestOp::delete_between(from, to));
        prop::collection::vec(prop_oneof![range, put, delete], 0..4)
    }

    fn comparisons() -> impl Strategy<Value = Vec<Compare>> {
        let results = [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let one = (prop::sample::select(results.to_vec()), any::<(u8, Vec<u8>, i64, Vec<u8>)>()).prop_map(
            |(result, (which, key, revision, value))| match which % 3 {
                0 => Compare::mod_revision(key, result, revision),
                1 => Compare::create_revision(key, result, revision),
                _ => Compare::value(key, result, value),
            },
        );
        prop::collection::vec(one, 0..4)
    }

    fn ranges() -> impl Strategy<Value = RangeResponse> {
        (headers(), prop::collection::vec(key_values(), 0..3), any::<(bool, i64)>())
            .prop_map(|(header, kvs, (more, count))| RangeResponse { header, kvs, more, count })
    }

    fn txn_responses() -> impl Strategy<Value = TxnResponse> {
        let one = prop::option::of(ranges()).prop_map(|range| ResponseOp { range });
        (headers(), any::<bool>(), prop::collection::vec(one, 0..3))
            .prop_map(|(header, succeeded, responses)| TxnResponse { header, succeeded, responses })
    }

    fn watch_responses() -> impl Strategy<Value = WatchResponse> {
        let event = (any::<i32>(), prop::option::of(key_values()), prop::option::of(key_values()))
            .prop_map(|(kind, kv, prev_kv)| Event { kind, kv, prev_kv });
        (headers(), any::<(i64, bool, bool, i64, String, bool)>(), prop::collection::vec(event, 0..3)).prop_map(
            |(header, (watch_id, created, canceled, compact_revision, cancel_reason, fragment), events)| {
                WatchResponse { header, watch_id, created, canceled, compact_revision, cancel_reason, fragment, events }
            },
        )
    }

    proptest! {
        #[test]
        fn every_message_is_read_back(
            compare in comparisons(), success in operations(), failure in operations(),
            txn in txn_responses(), watch in watch_responses(),
        ) {
            let request = TxnRequest { compare, success, failure };
            prop_assert_eq!(TxnRequest::decode(&request.encode_to_vec()[..]).unwrap(), request);
            prop_assert_eq!(TxnResponse::decode(&txn.encode_to_vec()[..]).unwrap(), txn);
            prop_assert_eq!(WatchResponse::decode(&watch.encode_to_vec()[..]).unwrap(), watch);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            decode_all(&bytes);
        }

        #[test]
        fn no_corrupt_message_panics(
            txn in txn_responses(), watch in watch_responses(), at: prop::sample::Index, byte: u8, cut: bool,
        ) {
            for mut bytes in [txn.encode_to_vec(), watch.encode_to_vec()] {
                if bytes.is_empty() {
                    continue;
                }
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if cut {
                    bytes.truncate(at);
                }
                decode_all(&bytes);
            }
        }
    }
}
