//! Conditions that need a person: stable codes, their texts, exit codes, and the board they hang on.
//!
//! The panel, the debug socket and the log show the same code and the same sentence. Which error
//! becomes which fault is decided where the error is handled, not here.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retry:expr, $exit:ident: $text:literal;)*) => {
        /// What went wrong, as a code that stays the same from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultCode { $($(#[$doc])* $name,)* }

        impl FaultCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as people read it, for example `F-DISK-FULL`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What happened, what is safe, and what to do next.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether trying again by itself can help; otherwise a person has to act first.
            #[must_use]
            pub fn retries(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// How the process ends if this keeps it from running at all.
            #[must_use]
            pub fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* }
            }
        }
    };
}

fault_codes! {
    /// No space is left.
    DiskFull = "F-DISK-FULL", true, Storage:
        "the storage is full; everything saved so far is safe and can be read, new changes are \
         refused; free some space and saving goes on by itself";
    /// Reading or writing the storage did not work.
    DiskIo = "F-DISK-IO", true, Storage:
        "the storage does not answer or reports an error; what was acknowledged before is not \
         touched; check the storage of this machine and consider replacing it";
    /// A database is damaged.
    DbCorrupt = "F-DB-CORRUPT", false, DamagedData:
        "the database is damaged and was left as it is, nothing was deleted; the other devices keep \
         their copies; have a service engineer set the file aside, and recover from one of them";
    /// A database was written by a newer release.
    DbNewer = "F-DB-NEWER", false, DamagedData:
        "the database was written by a newer release and was not touched; install that release or \
         a later one";
    /// The storage cannot be written.
    ReadOnly = "F-READ-ONLY", true, Storage:
        "the storage is read-only; everything saved so far is safe and can be read, new changes \
         are refused; make it writable again and saving goes on by itself";
    /// A network address cannot be listened on.
    Listen = "F-LISTEN", true, Unavailable:
        "the network address for other devices cannot be opened; data is safe and local use goes \
         on; free the address or change `listen`, it is tried again by itself";
    /// The control file cannot be trusted, read or written.
    ControlFile = "F-CONTROL-FILE", false, DamagedData:
        "the file that says which role this machine has cannot be used and was left as it is; the \
         databases are not affected; have a service engineer set it aside and choose the role again";
    /// The keys or the certificate of this device cannot be used.
    Keys = "F-KEYS", false, DamagedData:
        "the keys of this machine are missing or cannot be used; its data is safe and local use \
         goes on; pair this machine again";
    /// The server refuses this device.
    Refused = "F-REFUSED", true, Unavailable:
        "the server refuses this machine; its changes are kept here and local use goes on; check \
         at the server whether this machine is still a device of the group";
    /// The device was released by an operator.
    Released = "F-RELEASED", false, Unavailable:
        "this machine was released from the group; its data stays here as its own, edits that were \
         not sent included (`mfpsync unsent` names them); to take part in the group, leave it, then \
         pair it again";
    /// The server found belongs to another group.
    WrongGroup = "F-WRONG-GROUP", false, Unavailable:
        "the server at the configured address belongs to another group, nothing was exchanged \
         with it; correct the address or pair this machine with that group";
    /// This device's data looks like an older copy of itself.
    Quarantine = "F-QUARANTINE", false, Unavailable:
        "the data of this machine looks like an older copy of itself and was separated, nothing \
         was lost; resynchronize it from the server";
    /// Too many changes wait for the server.
    OutboxFull = "F-OUTBOX-FULL", true, Unavailable:
        "too many changes wait for the server, all of them are safe here and new ones are refused; \
         restore the connection to the server and they are sent by themselves";
    /// Another device became the server.
    Superseded = "F-SUPERSEDED", false, Unavailable:
        "another machine became the group's server, and this one stopped serving; its users work on with \
         the new server, which is offered what only this machine had; the database of before is kept; when \
         nothing is missing, dismiss it (`mfpsync role retire`)";
    /// A takeover was taken back.
    NotTakenOver = "F-NOT-TAKEN-OVER", false, Unavailable:
        "the server that had stood down for this machine goes on, so this machine did not become the server and is \
         the replica again; nothing is lost; hand over again, or say that the server is lost";
    /// Two devices claim to follow the same reign.
    Forked = "F-FORKED", false, Unavailable:
        "two machines became the group's server without knowing of each other, and devices follow the one \
         or the other; no change is taken until it is settled, and nothing of either is discarded; decide which \
         one stays, and say so there (`mfpsync role stay`)";
    /// The other device speaks a version this one does not.
    Protocol = "F-PROTOCOL", true, Unavailable:
        "this machine and the other one have releases that cannot work together; changes are kept \
         here; update the older one";
    /// A device claims to have seen more than the server's disk holds.
    RolledBack = "F-ROLLED-BACK", false, Unavailable:
        "a device has seen more of the group's data than this server holds; either this server's disk \
         was put back, then recover from a newer copy, or that device's data is false, then release it; \
         nothing is sent to it and it keeps what it has";
    /// Changes are acknowledged without the replica.
    Unprotected = "F-UNPROTECTED", false, Unavailable:
        "the replica does not answer, and changes are confirmed without it as was chosen; they are on this \
         server's storage alone until it is back, then they are copied by themselves; find out why the \
         replica does not answer, or stop replication";
    /// Changes wait for the replica.
    ChangesHeld = "F-CHANGES-HELD", false, Unavailable:
        "the replica does not answer, and nothing is confirmed without it, as was chosen; changes wait on the \
         devices, none is lost; get the replica to answer, or choose another durability or stop replication \
         (`mfpsync replication`)";
    /// The replica's copy is not what it should be.
    ReplicaWrong = "F-REPLICA-WRONG", false, Unavailable:
        "the replica's copy is not what it should be and is mended by itself; the server's data is not \
         affected; check the storage of the replica if this comes again, and let `mfpsync replication prove` \
         look at it";
    /// No archive was made, and will not be by itself.
    Backup = "F-BACKUP", false, Unavailable:
        "the group's data is not being backed up; earlier archives are untouched, and everything goes on; see why \
         (`mfpsync backup status`), put it right, and make one (`mfpsync backup now`)";
    /// A user has nearly as much as one user may have.
    UserNearlyFull = "F-USER-NEARLY-FULL", false, Unavailable:
        "a user's room is nearly used up: at 2,000 items or 1 MiB new items of that user are refused; \
         everything saved is safe; delete what is no longer needed";
    /// The group has nearly as many devices as it may have.
    DevicesNearlyFull = "F-DEVICES-NEARLY-FULL", false, Unavailable:
        "the group has nearly as many machines as it may have: at 1,000 no further one can be paired; \
         all go on working; release those that are no longer in use";
    /// A part ended that was to go on.
    Part = "F-PART", true, Internal:
        "a part of mfpsyncd on this machine ended unexpectedly; everything saved is safe and can be read; \
         it is started again by itself, report it if it comes back";
    /// Another daemon holds the data directory.
    AlreadyRunning = "F-ALREADY-RUNNING", false, AlreadyRunning:
        "another mfpsyncd uses the same data directory and goes on undisturbed; stop it first, or \
         give this one its own `data_dir`";
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the process ends. **Source**: the numbers follow `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Stopped because asked to, or a check passed.
    Clean = 0,
    /// The command line was not understood.
    Usage = 64,
    /// Data on disk is damaged or from a newer release; starting again does not help.
    DamagedData = 65,
    /// Something the daemon needs is not to be had at the moment.
    Unavailable = 69,
    /// A part did not stop in time, or the system refused something that never fails.
    Internal = 70,
    /// The storage cannot be used.
    Storage = 74,
    /// Another daemon uses the same data directory.
    AlreadyRunning = 75,
    /// The configuration is wrong; starting again does not help.
    Config = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// One condition that needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The stable code.
    pub code: FaultCode,
    /// What happened, what is safe, what next; never personal data or secrets.
    pub text: String,
    /// Since when, in Unix milliseconds; informs only.
    pub since_unix_millis: u64,
}

impl Fault {
    /// A fault that begins now, with the code's own sentence.
    #[must_use]
    pub fn now(code: FaultCode) -> Self {
        Self { code, text: code.text().to_owned(), since_unix_millis: unix_millis() }
    }

    /// A fault that begins now, with evidence after the code's own sentence.
    #[must_use]
    pub fn with_detail(code: FaultCode, detail: impl fmt::Display) -> Self {
        Self { text: format!("{} ({detail})", code.text()), ..Self::now(code) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Fault {}

fn unix_millis() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The faults that stand at the moment, at most one for each code; cheap to clone and to watch.
#[derive(Debug, Clone)]
pub struct FaultBoard {
    standing: watch::Sender<Vec<Fault>>,
}

impl Default for FaultBoard {
    fn default() -> Self {
        Self { standing: watch::Sender::new(Vec::new()) }
    }
}

impl FaultBoard {
    /// Hangs a fault up and logs it; one that stands already keeps its `since` and takes the new text.
    pub fn set(&self, fault: Fault) {
        self.standing.send_if_modified(|standing| {
            match standing.iter_mut().find(|known| known.code == fault.code) {
                Some(known) if known.text == fault.text => return false,
                Some(known) => known.text.clone_from(&fault.text),
                None => {
                    tracing::error!(code = %fault.code, "{}", fault.text);
                    standing.push(fault);
                    standing.sort_by_key(|known| known.code);
                }
            }
            true
        });
    }

    /// Takes a fault down and logs that it is over, if it stood.
    pub fn clear(&self, code: FaultCode) {
        self.standing.send_if_modified(|standing| {
            let before = standing.len();
            standing.retain(|known| known.code != code);
            let gone = standing.len() != before;
            if gone {
                tracing::info!(%code, "fault is over");
            }
            gone
        });
    }

    /// The faults that stand now, ordered by code.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Fault> {
        self.standing.borrow().clone()
    }

    /// Follows the faults.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<Fault>> {
        self.standing.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_says_what_happened_what_is_safe_and_what_next() {
        let codes: BTreeSet<_> = FaultCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), FaultCode::ALL.len());
        for code in FaultCode::ALL {
            assert!(code.as_str().starts_with("F-"), "{code}");
            assert!(code.text().matches(';').count() >= 1, "{code}: {}", code.text());
            assert_ne!(code.exit(), Exit::Clean, "{code}");
        }
    }

    #[test]
    fn a_fault_set_again_keeps_its_beginning_and_takes_the_new_text() {
        let board = FaultBoard::default();
        let first = Fault { since_unix_millis: 7, ..Fault::now(FaultCode::Listen) };
        board.set(first.clone());
        board.set(Fault::with_detail(FaultCode::Listen, "address in use"));
        let [standing] = &board.snapshot()[..] else { panic!("one fault stands") };
        assert_eq!(standing.since_unix_millis, 7);
        assert!(standing.text.ends_with("(address in use)"));
    }

    #[test]
    fn watchers_hear_of_changes_only() {
        let board = FaultBoard::default();
        let mut watch = board.watch();
        board.clear(FaultCode::Listen);
        assert!(!watch.has_changed().unwrap());
        board.set(Fault::now(FaultCode::Listen));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        board.set(Fault::now(FaultCode::Listen));
        assert!(!watch.has_changed().unwrap());
        board.clear(FaultCode::Listen);
        assert!(watch.borrow_and_update().is_empty());
    }
}
