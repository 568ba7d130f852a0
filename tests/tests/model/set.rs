//! Operations, sets of them, of edits and of reigns, and the order a server gave: small enough to be copied.

use mfpsync_storage::model::Chain;

use super::state::{EDITS, Edit, REIGNS, Reign};

/// An operation: an edit as its author made it, or as a client offers it from its mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Op {
    pub edit: Edit,
    /// The client that offers what it mirrored; none for the author's own.
    pub mirrored_by: Option<u8>,
}

impl Op {
    const KINDS: u8 = 3;

    fn code(self) -> u8 {
        self.edit * Self::KINDS + self.mirrored_by.map_or(0, |client| client + 1)
    }

    fn from_code(code: u8) -> Self {
        Self { edit: code / Self::KINDS, mirrored_by: (code % Self::KINDS).checked_sub(1) }
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ledger(u16);

impl Ledger {
    pub fn has(self, op: Op) -> bool {
        self.0 & (1 << op.code()) != 0
    }

    pub fn insert(&mut self, op: Op) {
        self.0 |= 1 << op.code();
    }

    /// The edits of which something was decided.
    pub fn edits(self) -> Edits {
        let any = |edit: &Edit| self.0 >> (edit * Op::KINDS) & ((1 << Op::KINDS) - 1) != 0;
        (0..EDITS as u8).filter(any).fold(Edits::default(), Edits::with)
    }
}

/// A set of edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Edits(u8);

impl Edits {
    pub fn with(self, edit: Edit) -> Self {
        Self(self.0 | 1 << edit)
    }

    pub fn without(self, edit: Edit) -> Self {
        Self(self.0 & !(1 << edit))
    }

    pub fn has(self, edit: Edit) -> bool {
        self.0 & (1 << edit) != 0
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn first(self) -> Option<Edit> {
        (!self.is_empty()).then(|| self.0.trailing_zeros() as u8)
    }
}

/// Changes in the order a server gave them, each with the reign that did: its place is its sequence, and the
/// whole is its own chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Log(u64);

impl Log {
    const BITS: u32 = 8;

    pub fn len(self) -> u8 {
        ((u64::BITS - self.0.leading_zeros()).div_ceil(Self::BITS)) as u8
    }

    pub fn prefix(self, len: u8) -> Self {
        if u32::from(len) * Self::BITS >= u64::BITS {
            return self;
        }
        Self(self.0 & ((1 << (u32::from(len) * Self::BITS)) - 1))
    }

    pub fn starts_with(self, other: Self) -> bool {
        self.prefix(other.len()) == other
    }

    pub fn push(&mut self, reign: Reign, op: Op) {
        let len = u32::from(self.len());
        assert!(len * Self::BITS < u64::BITS, "the scope keeps logs short");
        self.0 |= u64::from(reign << 4 | (op.code() + 1)) << (len * Self::BITS);
    }

    pub fn entries(self) -> impl DoubleEndedIterator<Item = (Reign, Op)> {
        (0..self.len()).map(move |at| {
            let entry = (self.0 >> (u32::from(at) * Self::BITS)) as u8;
            (entry >> 4, Op::from_code((entry & 0xf) - 1))
        })
    }

    pub fn chain(self) -> Chain {
        let mut chain = Chain::START;
        chain.0[..8].copy_from_slice(&self.0.to_le_bytes());
        chain
    }
}

/// A set of reigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reigns(u8);

impl Reigns {
    pub const NONE: Self = Self(0);

    pub fn with(self, reign: Reign) -> Self {
        Self(self.0 | 1 << reign)
    }

    pub fn has(self, reign: Reign) -> bool {
        self.0 & (1 << reign) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn all(self) -> impl Iterator<Item = Reign> {
        (0..REIGNS as Reign).filter(move |reign| self.has(*reign))
    }
}
