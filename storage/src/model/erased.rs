//! The mark of an erased user: a server-only item that says so to every device without the name.
//!
//! The mark's key and fields, and what it refuses. Who sets it is `mfpsync_replication::operator`;
//! the server holds operations against it, devices purge and refuse by it.

use super::change::sha256;
use super::{Fields, GroupId, ItemKey, Kind, Scope, Sequence, Value};

/// The kind of the marks.
pub const ERASED_KIND: &str = "group.erased";

/// Keeps these hashes apart from any other use of the same words.
const DOMAIN: &[u8] = b"mfpsync erased scope\0";
const STATE: &str = "state";
const AT: &str = "at";
const GENERATION: &str = "generation";
const ERASED: &str = "erased";
const READMITTED: &str = "readmitted";

/// What a mark says.
///
/// **Source**: `docs/formats.md`, "Marks of erased users".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasedMark {
    /// The name was opened again; otherwise nothing of this user is taken.
    pub readmitted: bool,
    /// When, by the server's wall clock, Unix milliseconds; informs only.
    pub at: u64,
    /// Rises by one with every erasure and every readmission.
    pub generation: u64,
}

impl ErasedMark {
    /// The fields of the mark's item.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let state = if self.readmitted { READMITTED } else { ERASED };
        Fields::from_iter([
            (STATE, Value::Text(state.to_owned())),
            (AT, integer(self.at)),
            (GENERATION, integer(self.generation)),
        ])
    }

    /// Reads a mark. What is not understood counts as erased: nothing returns by a misunderstanding.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let integer = |name| match fields.get(name) {
            Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let readmitted = matches!(fields.get(STATE), Some(Value::Text(state)) if state == READMITTED);
        Self { readmitted, at: integer(AT), generation: integer(GENERATION) }
    }
}

/// A mark as a database holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// What it says.
    pub mark: ErasedMark,
    /// The change that made it so.
    pub sequence: Sequence,
}

impl Erasure {
    /// Whether an edit whose author had seen everything up to `base` is refused: always while the
    /// user is erased, and ever after if it does not know of the readmission.
    #[must_use]
    pub fn refuses(&self, base: Sequence) -> bool {
        !self.mark.readmitted || base < self.sequence
    }
}

/// Where the mark of a scope is; none for scopes that are never erased.
#[must_use]
pub fn erasure_key(group: GroupId, scope: &Scope) -> Option<ItemKey> {
    if !scope.is_user() {
        return None;
    }
    let hash = sha256(&[DOMAIN, &group.0, scope.as_str().as_bytes()].concat());
    // At every edit: without the formatting machinery.
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    let id = hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    Some(ItemKey { scope: Scope::shared(), kind: Kind::parse(ERASED_KIND).ok()?, device: String::new(), id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_as_it_was_made() {
        for readmitted in [true, false] {
            let mark = ErasedMark { readmitted, at: 1_000, generation: 3 };
            assert_eq!(ErasedMark::of(&mark.fields()), mark);
        }
        assert!(!ErasedMark::of(&Fields::new()).readmitted, "what is not understood is erased");
    }

    #[test]
    fn a_mark_names_the_user_by_hash_and_differs_from_group_to_group() {
        let alice = Scope::user("alice").unwrap();
        let one = erasure_key(GroupId([1; 16]), &alice).unwrap();
        assert_eq!(one.id.len(), 64);
        assert_ne!(one.id, erasure_key(GroupId([2; 16]), &alice).unwrap().id);
        assert!(erasure_key(GroupId([1; 16]), &Scope::shared()).is_none());
    }

    #[test]
    fn readmission_takes_only_what_knows_of_it() {
        let mark = ErasedMark { readmitted: true, at: 0, generation: 2 };
        let erasure = Erasure { mark, sequence: Sequence(7) };
        assert!(erasure.refuses(Sequence(6)) && !erasure.refuses(Sequence(7)));
        let erased = Erasure { mark: ErasedMark { readmitted: false, ..mark }, ..erasure };
        assert!(erased.refuses(Sequence(9)));
    }
}
