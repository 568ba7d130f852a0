//! Which faults a run has and how strong: every seed draws its own mixture, because faults that are
//! always on hide each other.

use mfpsync_storage::master::Durability;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::operator::Act;

/// One virtual second.
pub(super) const SECOND: u64 = 1_000_000;
pub(super) const MINUTE: u64 = 60 * SECOND;

/// A mistake made on purpose in the simulation's own driver or server, never in the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The server decides a repeated push again, as if it had no ledger.
    AppliesTwice,
    /// A client settles an operation the server never saw.
    LosesAnEdit,
    /// A client stores a lost conflict as a success.
    HidesAConflict,
    /// A client drops one change of a batch and moves its cursor all the same.
    SkipsAChange,
    /// A client takes what is absent from a batch as deleted.
    TakesAbsenceForDeletion,
    /// The server forgets deletions that not everybody has seen.
    ForgetsTooEarly,
    /// A device that meets a new reign offers nothing again.
    OffersNothing,
    /// The server does not wait for its replica.
    AnswersBeforeTheReplica,
    /// The server says that everything is safe.
    CallsEverythingSafe,
    /// The server passes over the records of reigns above its own.
    IgnoresSuccessors,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AppliesTwice,
        Self::LosesAnEdit,
        Self::HidesAConflict,
        Self::SkipsAChange,
        Self::TakesAbsenceForDeletion,
        Self::ForgetsTooEarly,
        Self::OffersNothing,
        Self::AnswersBeforeTheReplica,
        Self::CallsEverythingSafe,
        Self::IgnoresSuccessors,
    ];

    /// The one of this name, as it is written here.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|defect| format!("{defect:?}") == name)
    }
}

/// The mixture of one run.
#[derive(Debug, Clone)]
pub(super) struct Swarm {
    pub devices: usize,
    /// Of those, so many join in the midst of it.
    pub late: usize,
    /// Edits at one device come about this often.
    pub edit_gap: u64,
    pub active_for: u64,
    pub delay: (u64, u64),
    /// Chances out of a thousand.
    pub lose: u32,
    pub replay: u32,
    pub crash_store: u32,
    pub crash_commit: u32,
    /// Time between faults of the kinds below; none when there are none.
    pub fault_gap: u64,
    pub faults: Vec<Fault>,
    pub push_operations: usize,
    pub batch_bytes: usize,
    pub ring: usize,
    pub user_items: u64,
    /// How many ids there are of each kind: few make conflicts.
    pub ids: u32,
    /// Devices that are machines which may serve.
    pub houses: usize,
    /// When changes are acknowledged; none: the operator takes whatever comes to mind.
    pub durability: Option<Durability>,
    /// Time between what the operator does.
    pub act_gap: u64,
    pub acts: Vec<Act>,
}

/// Faults that come from outside, now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    CutUp,
    CutDown,
    Partition,
    ClientCrash,
    ServerCrash,
    ClientDisk,
    ServerDisk,
    Clock,
    Reset,
    Floor,
    Collect,
    Leave,
    /// No fault: an operator switches the sharing of a kind.
    Share,
}

impl Swarm {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        const ALL: [Fault; 13] = [
            Fault::CutUp,
            Fault::CutDown,
            Fault::Partition,
            Fault::ClientCrash,
            Fault::ServerCrash,
            Fault::ClientDisk,
            Fault::ServerDisk,
            Fault::Clock,
            Fault::Reset,
            Fault::Floor,
            Fault::Collect,
            Fault::Leave,
            Fault::Share,
        ];
        let devices = if rng.random_bool(0.1) { rng.random_range(11..=20) } else { rng.random_range(2..=10) };
        const ACTS: [Act; 15] = [
            Act::Replicate,
            Act::Replicate,
            Act::Handover,
            Act::Promote,
            Act::Replace,
            Act::StopReplica,
            Act::StartServer,
            Act::Off,
            Act::Prove,
            Act::PutBack,
            Act::EmptyDisk,
            Act::PromoteFormer,
            Act::Fork,
            Act::Rot,
            Act::Stay,
        ];
        // One server and nobody else in some of them.
        let houses = if rng.random_bool(0.35) { 1 } else { devices.min(rng.random_range(2..=4)) };
        let faults: Vec<Fault> = ALL.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        let slow = rng.random_bool(0.3);
        let active_for = rng.random_range(3..=12) * MINUTE;
        Self {
            devices,
            late: rng.random_range(0..=devices / 2),
            edit_gap: active_for * devices as u64 / rng.random_range(40..=160),
            active_for,
            delay: if slow { (50_000, 4 * SECOND) } else { (200, rng.random_range(1_000..100_000)) },
            lose: some(rng, 20),
            replay: some(rng, 300),
            crash_store: some(rng, 10),
            crash_commit: some(rng, 40),
            fault_gap: rng.random_range(10..=60) * SECOND,
            faults,
            push_operations: pick(rng, &[1, 2, 5, 200]),
            batch_bytes: pick(rng, &[100, 1_000, 1 << 20]),
            ring: pick(rng, &[1, 4, 256]),
            user_items: pick(rng, &[6, 2_000, 2_000]),
            ids: rng.random_range(1..=5),
            houses,
            durability: pick(
                rng,
                &[None, Some(Durability::Async), Some(Durability::SyncHold), Some(Durability::SyncContinue)],
            ),
            act_gap: rng.random_range(10..=60) * SECOND,
            acts: ACTS.into_iter().filter(|_| rng.random_bool(0.6)).chain([Act::Replicate]).collect(),
        }
    }
}

/// Off as often as on.
fn some(rng: &mut StdRng, most: u32) -> u32 {
    if rng.random_bool(0.5) { rng.random_range(1..=most) } else { 0 }
}

pub(super) fn pick<T: Copy>(rng: &mut impl Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}
