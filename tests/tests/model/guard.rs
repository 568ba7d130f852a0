//! The rules that keep the group safe, by name. Each can be left out, and then something must fall.

/// A rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Two reigns of one number are told apart by the nonce in their epochs.
    NonceTellsReignsApart,
    /// A server to which a higher reign is proven writes that down before it answers.
    SealIsDurable,
    /// From then on it takes nothing more, also until its part has ended.
    SealedTakesNothing,
    /// An unsigned claim ends no reign.
    ClaimsAreVerified,
    /// A server does not start below the highest reign its device has seen.
    StartsNotBelowWhatWasSeen,
    /// A replica makes no record of its own when a reign above its copy is known.
    DecidesByWhatWasSeen,
    /// A replica takes nothing of a reign below the highest it knows.
    NothingOfAnEndedReign,
    /// And looks that up for whatever comes, not once for each connection.
    FloorIsReadEachTime,
    /// No device becomes the replica while another one is.
    OneReplica,
    /// A copy is fed by nobody but the server whose replica its device is.
    ShipsToItsReplica,
    /// A device takes over from a server that stands down when its copy has all there is.
    WaitsForTheCopy,
    /// And asks it once more, right before the record.
    AsksOnceMore,
    /// A record is written only for the takeover that is under way, not for one that was taken back.
    DecidesWhatIsUnderWay,
    /// The database of before becomes the copy only where its successor has all of it.
    ReusedWhereNothingIsLeft,
    /// And where that is of the very history, not of as many changes.
    ReusedOfTheSameHistory,
    /// An operator cannot choose a server whose reign has ended, or which stands down.
    StaysWhileItReigns,
    /// The record of a choice ends the other reigns by name.
    ChosenEndsTheOthers,
    /// And those before them.
    ChosenEndsThoseBefore,
    /// Edits that were made to what came after a fork count as made to what is before it.
    BasesAreLimited,
    /// With `sync` a change is acknowledged when the replica has it.
    SyncWaits,
    /// And so is one that was pushed again.
    RepeatedWaitsAsWell,
    /// And nobody is shown what the replica does not have.
    ShowsWhatIsConfirmed,
    /// An operation that was decided is not decided again.
    OperationsAreRemembered,
    /// An accepted edit is kept by its author until a second holder has it.
    RetainedUntilSafe,
    /// What was retained from beyond a fork is offered to the new reign.
    RetainedIsOffered,
    /// And what was retained and its server has never decided, wherever the fork is.
    UndecidedIsOffered,
    /// What was mirrored from beyond the fork is offered, too.
    MirrorIsOffered,
    /// A new reign is met and the offers are made in one transaction.
    MetAndOfferedAtOnce,
    /// To have heard of a reign is not to have met it.
    HeardIsNotMet,
    /// An answer counts on the connection it was asked on.
    AnswersBelongToAConnection,
    /// A device does not follow a reign that parted from its own, unless that knew of its own.
    ForksAreRefused,
    /// A server that is shown another reign of its number takes nothing more.
    ContestedTakesNothing,
    /// A device does not follow a server that has less than that reign had given it.
    LessThanBeforeIsRefused,
    /// Nor one that has forgotten what that reign had answered to it.
    ForgottenAnswersAreRefused,
    /// A device that meets another history of its very reign does not read it over its own.
    OtherHistoryIsRefused,
    /// A server to which its own reign is shown to have been longer takes no more changes.
    RolledBackTakesNothing,
    /// A copy that is ahead of the server is not replaced.
    CopyAheadIsKept,
    /// Nor is one that holds what the server's history does not.
    CopyOfAnotherHistoryIsKept,
    /// Whether changes are taken is decided where they are written, not before they queue.
    DecidedInTheWriter,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 39] = [
        Self::NonceTellsReignsApart,
        Self::SealIsDurable,
        Self::SealedTakesNothing,
        Self::ClaimsAreVerified,
        Self::StartsNotBelowWhatWasSeen,
        Self::DecidesByWhatWasSeen,
        Self::NothingOfAnEndedReign,
        Self::FloorIsReadEachTime,
        Self::OneReplica,
        Self::ShipsToItsReplica,
        Self::WaitsForTheCopy,
        Self::AsksOnceMore,
        Self::DecidesWhatIsUnderWay,
        Self::ReusedWhereNothingIsLeft,
        Self::ReusedOfTheSameHistory,
        Self::StaysWhileItReigns,
        Self::ChosenEndsTheOthers,
        Self::ChosenEndsThoseBefore,
        Self::BasesAreLimited,
        Self::SyncWaits,
        Self::RepeatedWaitsAsWell,
        Self::ShowsWhatIsConfirmed,
        Self::OperationsAreRemembered,
        Self::RetainedUntilSafe,
        Self::RetainedIsOffered,
        Self::UndecidedIsOffered,
        Self::MirrorIsOffered,
        Self::MetAndOfferedAtOnce,
        Self::HeardIsNotMet,
        Self::AnswersBelongToAConnection,
        Self::ForksAreRefused,
        Self::ContestedTakesNothing,
        Self::LessThanBeforeIsRefused,
        Self::ForgottenAnswersAreRefused,
        Self::OtherHistoryIsRefused,
        Self::RolledBackTakesNothing,
        Self::CopyAheadIsKept,
        Self::CopyOfAnotherHistoryIsKept,
        Self::DecidedInTheWriter,
    ];
}
