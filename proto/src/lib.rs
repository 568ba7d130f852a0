//! Wire messages of mfpsync, generated from `proto/*.proto`, with the protocol version and the
//! size limits that both ends of a connection enforce. No logic lives here.
//!
//! Start with `proto/local.proto` (firmware), `proto/panel.proto` (operator) and
//! `proto/sync.proto` (between devices).

/// The version of the device-to-device protocol this build speaks, and the oldest it understands.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest version of the device-to-device protocol this build understands.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// ALPN name of the sync port for enrolled devices: plain HTTP/2, as gRPC expects it.
pub const ALPN_SYNC: &[u8] = b"h2";
/// ALPN name that reaches only the pairing service, with a key that is not enrolled yet.
pub const ALPN_ENROLL: &[u8] = b"mfpsync-enroll/1";

/// Size limits on the wire and at the local sockets (counts, and bytes of the encoded form).
pub mod limit {
    /// Largest message on any socket or connection, in bytes.
    pub const MESSAGE_BYTES: usize = 2 << 20;
    /// Largest run of change records in one `Batch`, in bytes.
    pub const BATCH_BYTES: usize = 1 << 20;
    /// Largest message of a follow stream, in bytes: a batch, and the largest operation that may end it.
    pub const FOLLOW_MESSAGE_BYTES: usize = 9 << 20;
    /// Largest message on a local socket, in bytes: the largest operation, or all items of a user.
    pub const LOCAL_MESSAGE_BYTES: usize = 8 << 20;
    /// Operations in one `PushRequest`.
    pub const PUSH_OPERATIONS: usize = 200;
    /// Bytes of all operation records in one `PushRequest`.
    pub const PUSH_BYTES: usize = 1 << 20;
    /// Edits in one local `WriteRequest`, which become one operation.
    pub const WRITE_EDITS: usize = 100;
}

/// Sync between a client and its server.
pub mod sync {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.sync.v1");
}

/// Feeding the replica.
pub mod replica {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.replica.v1");
}

/// Pairing by a short code.
pub mod enroll {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.enroll.v1");
}

/// Local API for firmware.
pub mod local {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.local.v1");
}

/// Local API for the operator.
pub mod panel {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.panel.v1");
}

/// Local API for the operator: history, undo, users, edits set aside.
pub mod records {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    include!(concat!(env!("OUT_DIR"), "/records/mfpsync.records.v1.rs"));
}

/// Local API for the operator: communication log, metrics, reload.
pub mod monitor {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.monitor.v1");
}

/// Local API for the operator: archives on a share, and coming back from one.
pub mod backup {
    #![allow(missing_docs, unreachable_pub, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("mfpsync.backup.v1");
}
