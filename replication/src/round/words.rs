//! What goes into the round and what comes out of it.

use std::time::Duration;

use mfpsync_storage::model::{
    Change, Cursor, Epoch, IssuingCertificate, Member, OperationNumber, Outcome, Promotion, Revision,
    Sequence, Signed,
};

use crate::message::{
    Claim, Follow, FollowEvent, Greeting, Hello, PushAnswer, Refusal, RefusalClass, RefusalReason,
    ResetReason,
};

/// A reading of a monotonic clock, as time since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// This long after.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

/// When a step is taken, and the luck it is taken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The present.
    pub now: Moment,
    /// Uniform over all values, drawn anew for every step.
    pub random: u64,
}

/// Names one attempt to connect; whatever comes late from an earlier one is ignored by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LinkId(pub u64);

/// The outbox's state, read in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outbox {
    /// Whether operations wait.
    pub waiting: bool,
    /// The last operation number given out.
    pub last_operation: OperationNumber,
    /// Outcomes up to here are stored.
    pub low_water: OperationNumber,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The moment of the latest [`Effect::WakeAt`] has come.
    Tick,
    /// Something happened on a connection.
    Link(LinkId, LinkEvent),
    /// A storage effect was carried out; one for each, in their order.
    Stored(Stored),
    /// Somebody edited at this device.
    LocalEdits(Outbox),
    /// Where the group's server may be, best first.
    Endpoints(Vec<String>),
    /// Pauses between attempts are no longer than this from now on; one that has begun stays.
    LongestWait(Duration),
    /// The device stops being a client, or the daemon stops.
    Stop,
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It stands, and the peer has proven to be a member that serves.
    Dialled,
    /// The server answered; all its signatures were verified.
    Greeted(Box<Greeting>),
    /// Something came on the follow stream; membership records were verified.
    Follow(FollowEvent),
    /// The server answered a push.
    PushAnswered(PushAnswer),
    /// There was nothing to push.
    OutboxEmpty(Outbox),
    /// The push failed, the connection perhaps not.
    PushFailed(Failure),
    /// Dialling, the hello or the follow stream failed or ended.
    Failed(Failure),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection, a cut one, or a stream that ended.
    Transport,
    /// The peer did not prove to be a member that serves, or its records do not verify.
    Impostor,
    /// The peer said something malformed.
    Malformed,
    /// The peer refused; a promotion record in it was verified.
    Refused {
        /// How.
        refusal: Box<Refusal>,
        /// How long it asked to be left alone.
        push_back: Option<Duration>,
    },
}

/// A storage effect was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The batch is in the mirror, up to this cursor.
    Applied(Cursor),
    /// The reset has begun.
    ResetBegun,
    /// The reset is complete, at this cursor.
    ResetFinished(Cursor),
    /// Outcomes are stored.
    Settled(Outbox),
    /// The greeting's records are stored, and lost edits are offered again.
    GreetingAdopted(Outbox),
    /// Something was noted that nobody waits for.
    Noted,
    /// It was not carried out; nothing of it is stored.
    Failed,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect.
    Dial {
        /// As what.
        link: LinkId,
        /// Where, `host:port`.
        endpoint: String,
    },
    /// Say hello.
    Hello(LinkId, Box<Hello>),
    /// Open the follow stream.
    Follow(LinkId, Follow),
    /// Push what waits, from the oldest.
    Push(LinkId, PushOrder),
    /// Drop the connection, with all that is under way on it.
    Disconnect(LinkId),
    /// Storage: what the greeting brought, in one transaction.
    AdoptGreeting(Box<AdoptGreeting>),
    /// Storage: verified membership records.
    AdoptMembership {
        /// Rows.
        members: Vec<Signed<Member>>,
        /// Certificates.
        issuers: Vec<Signed<IssuingCertificate>>,
    },
    /// Storage: a verified promotion record above all known ones.
    NoteClaim(Box<Claim>),
    /// Storage: changes into the mirror, and the cursor behind them.
    ApplyBatch {
        /// The changes; none when only the cursor moves.
        changes: Vec<Change>,
        /// The cursor behind them.
        cursor: Cursor,
    },
    /// Storage: everything will come anew.
    BeginReset(ResetReason),
    /// Storage: everything has come; move the cursor and drop what did not come, in one
    /// transaction.
    FinishReset(Cursor),
    /// Storage: what became of pushed operations.
    Settle(Vec<(OperationNumber, Outcome)>),
    /// Storage: retained edits up to here have a second holder.
    ForgetSafe(Sequence),
    /// Send a [`Event::Tick`] then; replaces the one asked for before.
    WakeAt(Moment),
    /// For the status.
    Report(LinkState),
}

impl Effect {
    /// Whether it is answered by exactly one [`Event::Stored`].
    #[must_use]
    pub fn is_stored(&self) -> bool {
        match self {
            Self::AdoptGreeting(_)
            | Self::AdoptMembership { .. }
            | Self::NoteClaim(_)
            | Self::ApplyBatch { .. }
            | Self::BeginReset(_)
            | Self::FinishReset(_)
            | Self::Settle(_)
            | Self::ForgetSafe(_) => true,
            Self::Dial { .. }
            | Self::Hello(..)
            | Self::Follow(..)
            | Self::Push(..)
            | Self::Disconnect(_)
            | Self::WakeAt(_)
            | Self::Report(_) => false,
        }
    }
}

/// How to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushOrder {
    /// The reign pushed to.
    pub epoch: Epoch,
    /// Outcomes up to here are stored.
    pub low_water: OperationNumber,
    /// At most so many operations.
    pub operations: usize,
    /// At most so many bytes of records, but always one.
    pub bytes: usize,
}

/// What a greeting brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptGreeting {
    /// The server's whole lineage.
    pub lineage: Vec<Signed<Promotion>>,
    /// Membership rows.
    pub members: Vec<Signed<Member>>,
    /// Certificates.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// The group's name.
    pub group_name: String,
    /// Set when the reign is new to us: it has what we had up to here, a change of the last reign that
    /// both know. What was accepted beyond is to be offered again.
    pub lost_beyond: Option<Revision>,
    /// The highest of our operations whose outcome the server has.
    pub known_operation: OperationNumber,
    /// Up to which of them the server has forgotten it, since we had confirmed it.
    pub confirmed_operation: OperationNumber,
}

/// How the client stands to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Waiting before the next attempt.
    Offline {
        /// Attempts that failed in a row.
        attempt: u32,
        /// The latest reason.
        trouble: Option<Trouble>,
        /// When the next one is made.
        until: Moment,
    },
    /// Dialling and greeting.
    Connecting {
        /// Where.
        endpoint: String,
    },
    /// Following.
    Following {
        /// Where.
        endpoint: String,
        /// The server's reign.
        epoch: Epoch,
        /// Whether everything has come.
        caught_up: bool,
        /// The server's last accepted operation, as far as known.
        head: Sequence,
        /// Up to where another holder has everything too.
        safe: Option<Sequence>,
        /// Why pushing rests, if it does.
        push_trouble: Option<Trouble>,
    },
    /// Refused for a reason that must be removed first; tried again seldom.
    Refused {
        /// The reason.
        trouble: Trouble,
        /// When it is tried again.
        until: Moment,
    },
    /// Over.
    Ended(End),
}

/// Why the round is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// The group released this device.
    Released,
    /// This device's own history is in doubt: its disk was rolled back or cloned.
    Quarantined,
}

/// What stands between the client and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody knows where the server is.
    NoEndpoint,
    /// The connection does not come about, or broke.
    Unreachable,
    /// The peer is not a server of this group.
    Impostor,
    /// The peer says what it must not.
    Malformed,
    /// An answer did not come in time.
    TimedOut,
    /// The server fell silent.
    Silent,
    /// The server refused.
    Refused(RefusalReason),
    /// No common protocol version.
    Protocol,
    /// The server was superseded.
    Superseded,
    /// Two servers claim to follow this reign; a person must choose.
    Forked {
        /// The last common reign.
        parent: u64,
    },
    /// The server's history is not that of this group.
    Unrelated,
    /// The server lacks what it sent before: its disk was rolled back.
    ServerRolledBack,
    /// Our own storage fails.
    StorageFailed,
    /// The server knows operations this device has not made.
    OwnHistory,
}

impl Trouble {
    /// What to do next.
    #[must_use]
    pub fn class(self) -> RefusalClass {
        match self {
            Self::NoEndpoint | Self::Silent | Self::StorageFailed => RefusalClass::Retry,
            Self::Unreachable | Self::Impostor | Self::Malformed | Self::TimedOut | Self::Superseded => {
                RefusalClass::Elsewhere
            }
            Self::Protocol | Self::Forked { .. } | Self::Unrelated | Self::ServerRolledBack => {
                RefusalClass::Seldom
            }
            Self::Refused(reason) => reason.class(),
            Self::OwnHistory => RefusalClass::Quarantined,
        }
    }

    /// A stable word for status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::Unreachable => "unreachable",
            Self::Impostor => "impostor",
            Self::Malformed => "malformed",
            Self::TimedOut => "timed-out",
            Self::Silent => "silent",
            Self::Refused(reason) => reason.as_str(),
            Self::Protocol => "protocol-version",
            Self::Superseded => "superseded",
            Self::Forked { .. } => "forked",
            Self::Unrelated => "unrelated",
            Self::ServerRolledBack => "server-rolled-back",
            Self::StorageFailed => "storage-failed",
            Self::OwnHistory => "own-history",
        }
    }
}

impl Failure {
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Transport => Trouble::Unreachable,
            Self::Impostor => Trouble::Impostor,
            Self::Malformed => Trouble::Malformed,
            Self::Refused { refusal, .. } => Trouble::Refused(refusal.reason),
        }
    }

    pub(super) fn push_back(&self) -> Option<Duration> {
        match self {
            Self::Refused { push_back, .. } => *push_back,
            Self::Transport | Self::Impostor | Self::Malformed => None,
        }
    }
}
