//! How much may happen in a run, so that all that can happen is seen.

use super::guard::Guard;
use super::state::{EDITS, Who};

/// When an operator makes a machine the replica of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appoints {
    Never,
    /// The spare machine, where there is none.
    TheSpare,
    /// It, also in the place of another one, once.
    Anew,
    /// Any machine, as well.
    Any,
}

/// How a group stands at the beginning of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// A server and its replica.
    Whole,
    /// The server is lost.
    WithoutServer,
    /// The server is lost after an operator had named the spare machine for its replica, in the place of one that did
    /// not hear of that. Both have a copy.
    WithTwoReplicas,
}

/// What may happen.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub name: &'static str,
    /// Changes are acknowledged when the replica has them.
    pub sync: bool,
    /// Devices that only follow, one or two.
    pub clients: u8,
    /// Edits that are made.
    pub edits: u8,
    /// They are all made on one item, so that they compete.
    pub one_item: bool,
    /// Reigns there may be, the first included.
    pub reigns: u8,
    /// A replica may take over.
    pub promotion: bool,
    /// And the server may stand down for it.
    pub planned: bool,
    /// A server goes on as a client, so that it becomes the replica of a successor for which it stood down.
    pub swaps: bool,
    /// An operator makes machines the replica.
    pub appoints: Appoints,
    /// How the group stands at the beginning.
    pub begins: Begins,
    /// An operator chooses between two reigns.
    pub stay: bool,
    /// Machines and clients that may be lost for good.
    pub losses: u8,
    /// Which machine's disk may be put back to an earlier state, once.
    pub put_back: Option<Who>,
    /// Clients hear of a new reign before they meet it.
    pub gossip: bool,
    /// Somebody claims without proof that another device reigns.
    pub claims: bool,
}

/// The protocol in a scope, with the guards it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub scope: Scope,
    pub without: Option<Guard>,
}

impl Model {
    pub fn new(scope: Scope, without: Option<Guard>) -> Self {
        assert!(usize::from(scope.edits) <= EDITS, "no more fit into a state");
        Self { scope, without }
    }

    pub fn keeps(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}

impl Scope {
    /// Machines that do not serve follow as clients, and become the replica or stop being it.
    pub fn moves(&self) -> bool {
        self.swaps || self.appoints != Appoints::Never
    }
}

const NOTHING: Scope = Scope {
    name: "",
    sync: false,
    clients: 2,
    edits: 1,
    one_item: false,
    reigns: 2,
    promotion: false,
    planned: false,
    swaps: false,
    appoints: Appoints::Never,
    begins: Begins::Whole,
    stay: false,
    losses: 0,
    put_back: None,
    gossip: false,
    claims: false,
};
/// The replica takes over; the server is asked first or not, is silent or comes back.
pub const TAKEOVER: Scope =
    Scope { name: "takeover", promotion: true, planned: true, claims: true, ..NOTHING };
/// With `sync`.
pub const TAKEOVER_SYNC: Scope = Scope { name: "takeover-sync", sync: true, losses: 1, ..TAKEOVER };
/// Clients hear of the new reign before they meet it.
pub const HEARD: Scope = Scope { name: "heard", promotion: true, gossip: true, ..NOTHING };
/// Edits of one item.
pub const COMPETING: Scope = Scope { name: "competing", edits: 2, one_item: true, ..NOTHING };
/// The server hands over to its replica and becomes the replica in turn, and back again.
pub const HANDOVER: Scope =
    Scope { name: "handover", clients: 1, reigns: 3, promotion: true, planned: true, swaps: true, ..NOTHING };
/// The replica takes over from a server that is lost, and hands over to a spare machine that became its replica.
pub const RECOVERY: Scope =
    Scope { name: "recovery", appoints: Appoints::TheSpare, begins: Begins::WithoutServer, ..HANDOVER };
/// With `sync`.
pub const RECOVERY_SYNC: Scope = Scope { name: "recovery-sync", sync: true, ..RECOVERY };
/// The server returns, machines are lost on the way, and nobody edits.
pub const RIVALS: Scope =
    Scope { name: "rivals", clients: 0, edits: 0, reigns: 4, losses: 2, begins: Begins::Whole, ..RECOVERY };
/// Two replicas of one server take over; an operator chooses.
pub const STAY: Scope = Scope {
    name: "stay",
    clients: 1,
    reigns: 4,
    promotion: true,
    begins: Begins::WithTwoReplicas,
    stay: true,
    ..NOTHING
};
/// How that comes about: a replica takes the place of another one.
pub const REPLACED: Scope =
    Scope { name: "replaced", appoints: Appoints::Anew, begins: Begins::Whole, ..STAY };
/// With `sync`; a replica that was replaced takes over as well.
pub const REPLACED_SYNC: Scope =
    Scope { name: "replaced-sync", sync: true, reigns: 2, stay: false, ..REPLACED };
/// The server's disk is put back.
pub const SERVER_PUT_BACK: Scope =
    Scope { name: "server-put-back", edits: 2, put_back: Some(Who::Server), ..NOTHING };
/// The replica's is.
pub const REPLICA_PUT_BACK: Scope = Scope {
    name: "replica-put-back",
    clients: 1,
    reigns: 3,
    promotion: true,
    put_back: Some(Who::Replica),
    ..NOTHING
};

/// And an operator chooses.
pub const STAY_PUT_BACK: Scope = Scope { name: "stay-put-back", reigns: 4, stay: true, ..REPLICA_PUT_BACK };
/// The server's disk is put back, and it hands over, before that or after.
pub const HANDOVER_PUT_BACK: Scope =
    Scope { name: "handover-put-back", edits: 2, reigns: 2, put_back: Some(Who::Server), ..HANDOVER };

/// The same in a campaign.
pub fn larger(scope: Scope) -> Scope {
    match scope.name {
        "takeover" => Scope { edits: 2, losses: 1, ..scope },
        "takeover-sync" | "handover" => Scope { edits: 2, ..scope },
        "heard" => Scope { planned: true, losses: 1, ..scope },
        "competing" => Scope { promotion: true, ..scope },
        "recovery" | "recovery-sync" => Scope { begins: Begins::Whole, ..scope },
        "rivals" => Scope { clients: 1, losses: 3, ..scope },
        "stay" => Scope { reigns: 6, ..scope },
        "stay-put-back" => Scope { edits: 2, ..scope },
        "replaced" => Scope { reigns: 3, ..scope },
        "replaced-sync" => scope,
        "server-put-back" => Scope { edits: 1, promotion: true, losses: 1, ..scope },
        "replica-put-back" => Scope { clients: 2, ..scope },
        "handover-put-back" => Scope { edits: 2, ..scope },
        name => panic!("no scope is called {name}"),
    }
}
