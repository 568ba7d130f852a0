//! What the communication log can say: stable codes with level, text and how they fold. One list.

use std::fmt;

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Ordinary traffic.
    Info,
    /// Somebody did or decided something.
    Notice,
    /// Unexpected; the device goes on by itself.
    Warning,
    /// Needs a person.
    Error,
}

/// How long the same thing goes into the same entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Each time is an entry.
    Never,
    /// For an hour from its beginning.
    Hour,
    /// As long as it happens at least once an hour: a state that lasts.
    Lasting,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $level:ident, $fold:ident: $text:literal;)*) => {
        /// What happened, as a code that stays the same from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as people read it, for example `C-LOST`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How much it matters.
            #[must_use]
            pub fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// How it folds.
            #[must_use]
            pub fn fold(self) -> Fold {
                match self { $(Self::$name => Fold::$fold,)* }
            }
        }
    };
}

// A code that is given up is never used again.
codes! {
    /// This device and its server.
    Connected = "C-CONNECTED", Info, Hour: "connected with the server";
    /// The mirror is complete.
    CaughtUp = "C-CAUGHT-UP", Info, Hour: "everything of the group is here";
    /// A connection that stood is gone.
    Lost = "C-LOST", Warning, Hour: "the connection with the server was lost";
    /// An attempt came to nothing.
    Unreachable = "C-UNREACHABLE", Warning, Lasting: "the server was not reached";
    /// The server answered with a refusal.
    Refused = "C-REFUSED", Error, Lasting: "the server refused this device";
    /// Operations were answered.
    Pushed = "C-PUSHED", Info, Hour: "changes of this device were answered by the server";
    /// Changes of others arrived.
    Received = "C-RECEIVED", Info, Hour: "changes of the group arrived";
    /// The mirror is built anew.
    ReadAnew = "C-READ-ANEW", Notice, Hour: "everything is read anew from the server";
    /// A device follows this server.
    DeviceConnected = "C-DEVICE-CONNECTED", Info, Hour: "a device connected";
    /// It follows no more.
    DeviceLost = "C-DEVICE-LOST", Info, Hour: "the connection with a device ended";
    /// A connection or a request was turned away here.
    DeviceRefused = "C-DEVICE-REFUSED", Warning, Lasting: "a device was refused";
    /// A device's operations were answered.
    DevicePushed = "C-DEVICE-PUSHED", Info, Hour: "changes of a device were answered";
    /// An operator opened pairing.
    PairingOpened = "C-PAIRING-OPENED", Notice, Never: "pairing was opened";
    /// An operator closed it.
    PairingClosed = "C-PAIRING-CLOSED", Notice, Never: "pairing was closed by an operator";
    /// A newcomer failed.
    PairingRefused = "C-PAIRING-REFUSED", Warning, Lasting: "an attempt at pairing was refused";
    /// A newcomer is a member.
    MemberJoined = "C-MEMBER-JOINED", Notice, Never: "a device joined the group";
    /// A member was released here.
    MemberReleased = "C-MEMBER-RELEASED", Notice, Never: "a device was released from the group";
    /// A member left by itself.
    MemberLeft = "C-MEMBER-LEFT", Notice, Never: "a device left the group";
    /// This device paired with a server.
    Paired = "C-PAIRED", Notice, Never: "this device was paired with a server";
    /// This device tried to.
    NotPaired = "C-NOT-PAIRED", Warning, Hour: "this device was not paired with a server";
    /// Changes of a reign that ended early go to the next one.
    OfferedAgain = "C-OFFERED-AGAIN", Notice, Never: "changes that the former server had taken were offered to the new one";
    /// Two devices claim one reign.
    Contested = "C-CONTESTED", Warning, Never: "another device claims to be the group's server as well; no change is taken until an operator decides";
    /// Another device reigns.
    Superseded = "C-SUPERSEDED", Notice, Never: "another device became the group's server, and this one stopped serving";
    /// This device reigns.
    TookOver = "C-TOOK-OVER", Notice, Never: "this device became the group's server";
    /// This device's items became the group's.
    Joined = "C-JOINED", Notice, Never: "this device's own items became part of the group";
    /// The join goes back.
    JoinUndone = "C-JOIN-UNDONE", Notice, Never: "the join is being taken back";
    /// This device left its group.
    Left = "C-LEFT", Notice, Never: "this device left the group";
    /// A user was erased.
    Erased = "C-ERASED", Notice, Hour: "users were erased from this device's copy";
    /// An operator erased a user, at the server.
    ErasureBegun = "C-ERASURE-BEGUN", Notice, Never: "a user was erased from the group";
    /// An operator undid changes, at the server.
    Undone = "C-UNDONE", Notice, Never: "changes were taken back by an operator";
    /// An operator switched the sharing of a kind.
    SharingSwitched = "C-SHARING", Notice, Never: "the sharing of a kind was switched by an operator";
    /// An operator set the replica, or how changes are acknowledged.
    ReplicaSet = "C-REPLICA-SET", Notice, Never: "a device was made the replica";
    /// An operator ended replication.
    ReplicaStopped = "C-REPLICA-STOPPED", Notice, Never: "replication was stopped";
    /// The replica follows this server, or this device its server.
    ReplicaConnected = "C-REPLICA-CONNECTED", Info, Hour: "the replica is connected";
    /// It follows no more.
    ReplicaLost = "C-REPLICA-LOST", Warning, Hour: "the connection with the replica ended";
    /// Its copy is right.
    ReplicaProven = "C-REPLICA-PROVEN", Info, Hour: "the replica's copy was proven";
    /// Its copy is not.
    ReplicaWrong = "C-REPLICA-WRONG", Error, Never: "the replica's copy is not what it should be";
    /// Changes are acknowledged without it.
    Unprotected = "C-UNPROTECTED", Error, Never: "changes are confirmed without the replica";
    /// Changes wait for it.
    ChangesHeld = "C-CHANGES-HELD", Error, Never: "changes wait for the replica";
    /// It has everything again.
    Protected = "C-PROTECTED", Notice, Never: "the replica has everything again";
    /// An archive is on the share.
    ArchiveMade = "C-ARCHIVE-MADE", Notice, Never: "an archive was made and proven";
    /// None is.
    ArchiveNotMade = "C-ARCHIVE-NOT-MADE", Error, Lasting: "an archive was not made";
    /// An archive was looked at again.
    ArchiveProven = "C-ARCHIVE-PROVEN", Notice, Never: "an archive was read back and is what it should be";
    /// And it is not what it should be.
    ArchiveWrong = "C-ARCHIVE-WRONG", Error, Never: "an archive is not what it should be";
    /// An operator changed where archives go, or by whom.
    ShareSet = "C-SHARE-SET", Notice, Never: "the share for archives was set";
    /// The group goes on with what an archive held.
    Restored = "C-RESTORED", Notice, Never: "the group's data was restored from an archive";
    /// Items came back from an archive.
    BroughtBack = "C-BROUGHT-BACK", Notice, Never: "items were brought back from an archive";
    /// Another role runs.
    Role = "C-ROLE", Notice, Hour: "the role of this device changed";
    /// A fault began; the reason is its code.
    Fault = "C-FAULT", Error, Lasting: "a fault began";
    /// A fault ended.
    FaultOver = "C-FAULT-OVER", Notice, Lasting: "a fault is over";
}

impl Code {
    /// The code of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_documented_with_its_level() {
        let operations = include_str!("../../../docs/operations.md");
        let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            let row = format!("| `{code}` | {} | ", format!("{:?}", code.level()).to_lowercase());
            assert!(operations.contains(&row), "docs/operations.md lacks {row}");
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
        }
        let documented = operations.lines().filter(|line| line.starts_with("| `C-")).count();
        assert_eq!(documented, Code::ALL.len());
    }
}
