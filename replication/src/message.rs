//! What a client and its server say to each other, in domain form.
//!
//! `wire` turns these into protocol messages and back; everything here is well-formed, but
//! signatures are still to be verified where the keys are. No logic.

use mfpsync_storage::model::{
    Change, Cursor, Epoch, GroupId, Held, Incarnation, IssuingCertificate, Member, OperationNumber, Outcome,
    Promotion, PublicKey, Sequence, Signed,
};

/// Proof that a device reigns, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The record.
    pub promotion: Signed<Promotion>,
    /// The certificate of the key that signed it, for whoever has not met that device.
    pub issuer: Option<Signed<IssuingCertificate>>,
    /// The device's membership row.
    pub member: Option<Signed<Member>>,
}

impl Claim {
    /// The claim of a reign, with what is known of its device.
    #[must_use]
    pub fn of(
        promotion: Signed<Promotion>,
        issuers: &[Signed<IssuingCertificate>],
        members: &[Signed<Member>],
    ) -> Self {
        let device = promotion.record.device;
        let issuer = issuers.iter().find(|signed| signed.record.device == device).cloned();
        let member = members.iter().find(|signed| signed.record.device == device).cloned();
        Self { promotion, issuer, member }
    }
}

/// A client's first word on every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version it understands.
    pub protocol_min: u32,
    /// Newest protocol version it understands.
    pub protocol_max: u32,
    /// The group it belongs to.
    pub group: GroupId,
    /// This life of its local state.
    pub incarnation: Incarnation,
    /// The highest reign it has seen.
    pub claim: Option<Claim>,
    /// The last operation number it has given out; zero for none.
    pub last_operation: OperationNumber,
    /// `host:port` where it is reached when it serves.
    pub endpoints: Vec<String>,
    /// The key with which it would sign as a server; none if it has none.
    pub issuing_key: Option<PublicKey>,
    /// The version of its program, for people.
    pub version: String,
}

/// Limits a server announces; figures of zero on the wire stand for the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations in one push.
    pub push_operations: usize,
    /// Bytes of all operation records in one push.
    pub push_bytes: usize,
    /// Bytes of change records in one batch.
    pub batch_bytes: usize,
    /// Encoded bytes of one item's fields.
    pub item_bytes: usize,
    /// Fields of one item.
    pub item_fields: usize,
    /// Items of one user.
    pub user_items: usize,
    /// Encoded bytes of one user's items.
    pub user_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            push_operations: mfpsync_proto::limit::PUSH_OPERATIONS,
            push_bytes: mfpsync_proto::limit::PUSH_BYTES,
            batch_bytes: mfpsync_proto::limit::BATCH_BYTES,
            item_bytes: mfpsync_storage::model::limit::ITEM_BYTES,
            item_fields: mfpsync_storage::model::limit::ITEM_FIELDS,
            user_items: 2_000,
            user_bytes: 1 << 20,
        }
    }
}

/// A server's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The protocol version to speak.
    pub protocol: u32,
    /// Its reign.
    pub epoch: Epoch,
    /// Its last accepted operation.
    pub head: Sequence,
    /// Up to where another holder has everything too.
    pub safe: Option<Sequence>,
    /// What it takes.
    pub limits: Limits,
    /// Promotion records, oldest first.
    pub lineage: Vec<Signed<Promotion>>,
    /// Membership rows.
    pub members: Vec<Signed<Member>>,
    /// Issuing certificates they stand on.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// The highest operation of the client's incarnation with a recorded outcome.
    pub known_operation: OperationNumber,
    /// Up to which of them it had confirmed the outcome, so that it is recorded no more.
    pub confirmed_operation: OperationNumber,
    /// The group's name for people.
    pub group_name: String,
}

/// Asks for everything behind a cursor, and all that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// The group.
    pub group: GroupId,
    /// This life of the client's local state.
    pub incarnation: Incarnation,
    /// Up to where it has everything; none asks for all.
    pub cursor: Option<Cursor>,
    /// No operation waits that was made before it had that.
    pub settled: bool,
}

/// Why a follow stream starts from nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The client sent no cursor.
    NoCursor,
    /// The cursor is of a history the server does not know.
    UnknownHistory,
    /// The cursor is beyond the point where histories parted.
    PastFork,
    /// Tombstones older than the cursor have been collected.
    TooOld,
}

/// What comes on a follow stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowEvent {
    /// Everything comes anew.
    Reset(ResetReason),
    /// Changes in order, never a part of an operation.
    Batch {
        /// The sequence they build on; zero behind a reset.
        previous: Sequence,
        /// The changes.
        changes: Vec<Change>,
        /// The cursor behind them.
        cursor: Cursor,
    },
    /// All there was has been sent; live changes follow.
    CaughtUp {
        /// Up to here, where the last batch ended.
        cursor: Cursor,
        /// Up to where another holder has everything too.
        safe: Option<Sequence>,
    },
    /// The server lives.
    Heartbeat {
        /// Its last accepted operation.
        head: Sequence,
        /// Up to where another holder has everything too.
        safe: Option<Sequence>,
    },
    /// The group's membership changed.
    Membership {
        /// New rows.
        members: Vec<Signed<Member>>,
        /// New certificates.
        issuers: Vec<Signed<IssuingCertificate>>,
    },
}

/// Operations offered to the server, as records: what one side hashed, the other decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The group.
    pub group: GroupId,
    /// This life of the client's local state.
    pub incarnation: Incarnation,
    /// The reign the client believes in.
    pub epoch: Epoch,
    /// Outcomes up to here are stored at the client.
    pub low_water: OperationNumber,
    /// Canonical records in rising order of their numbers.
    pub operations: Vec<Vec<u8>>,
}

/// What became of pushed operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushAnswer {
    /// One for each, in order.
    pub outcomes: Vec<(OperationNumber, Outcome)>,
    /// The server's last accepted operation.
    pub head: Sequence,
    /// Up to where another holder has everything too.
    pub safe: Option<Sequence>,
}

/// A device's wish to leave the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// The group.
    pub group: GroupId,
    /// This life of the client's local state.
    pub incarnation: Incarnation,
}

/// What a device holds of the reign before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The group.
    pub group: GroupId,
    /// The present reign.
    pub epoch: Epoch,
    /// From beyond what that began with.
    pub held: Held,
}

/// Why a server refused a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: RefusalReason,
    /// For people; never compared.
    pub text: String,
    /// With [`RefusalReason::Superseded`]: what proves it.
    pub claim: Option<Claim>,
}

/// Reasons of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// None this build knows.
    Unspecified,
    /// No common protocol version.
    ProtocolVersion,
    /// The server is of another group.
    WrongGroup,
    /// The device is not in the membership.
    UnknownDevice,
    /// The device was released.
    Released,
    /// The device may not do this.
    Capability,
    /// The call named another epoch than the server's.
    WrongEpoch,
    /// The server was superseded.
    Superseded,
    /// The call was not well-formed.
    Malformed,
    /// The call was over a limit.
    OverLimit,
    /// Too much at once.
    Busy,
    /// No room at the server.
    StorageFull,
    /// The server's storage fails.
    StorageFault,
    /// The device's history contradicts the server's.
    Quarantined,
    /// The server is being stopped.
    Stopping,
    /// The group has as many devices as it may.
    DevicesFull,
    /// Pairing is not open.
    PairingClosed,
    /// The pairing code was wrong.
    PairingCode,
    /// The pairing code was wrong too often.
    PairingTries,
    /// The call named another device's incarnation.
    Incarnation,
}

/// What a refused client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalClass {
    /// Tries again a little later.
    Retry,
    /// Looks for the group's server elsewhere.
    Elsewhere,
    /// Tries again seldom: something must change first, usually by a person.
    Seldom,
    /// Stops: it does not belong to the group any more.
    Released,
    /// Stops: a person must decide about its local state.
    Quarantined,
}

impl RefusalReason {
    /// What a refused client does next.
    #[must_use]
    pub fn class(self) -> RefusalClass {
        match self {
            Self::Unspecified | Self::Busy | Self::StorageFull | Self::StorageFault | Self::Stopping => {
                RefusalClass::Retry
            }
            Self::WrongGroup | Self::WrongEpoch | Self::Superseded => RefusalClass::Elsewhere,
            Self::ProtocolVersion
            | Self::UnknownDevice
            | Self::Capability
            | Self::Malformed
            | Self::OverLimit
            | Self::DevicesFull
            | Self::PairingClosed
            | Self::PairingCode
            | Self::PairingTries
            | Self::Incarnation => RefusalClass::Seldom,
            Self::Released => RefusalClass::Released,
            Self::Quarantined => RefusalClass::Quarantined,
        }
    }

    /// A stable word for status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::ProtocolVersion => "protocol-version",
            Self::WrongGroup => "wrong-group",
            Self::UnknownDevice => "unknown-device",
            Self::Released => "released",
            Self::Capability => "capability",
            Self::WrongEpoch => "wrong-epoch",
            Self::Superseded => "superseded",
            Self::Malformed => "malformed",
            Self::OverLimit => "over-limit",
            Self::Busy => "busy",
            Self::StorageFull => "storage-full",
            Self::StorageFault => "storage-fault",
            Self::Quarantined => "quarantined",
            Self::Stopping => "stopping",
            Self::DevicesFull => "devices-full",
            Self::PairingClosed => "pairing-closed",
            Self::PairingCode => "pairing-code",
            Self::PairingTries => "pairing-tries",
            Self::Incarnation => "incarnation",
        }
    }
}
