//! How much may happen in a run, so that all that can happen is seen.

use super::guard::Guard;
use super::state::{EDITS, Who};

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
    /// A spare machine may recover the server from the replica's copy.
    pub recovery: bool,
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

const NOTHING: Scope = Scope {
    name: "",
    sync: false,
    clients: 2,
    edits: 1,
    one_item: false,
    reigns: 2,
    promotion: false,
    planned: false,
    recovery: false,
    losses: 0,
    put_back: None,
    gossip: false,
    claims: false,
};
/// The replica takes over; the server is asked first or not, is lost or comes back.
pub const TAKEOVER: Scope =
    Scope { name: "takeover", promotion: true, planned: true, claims: true, losses: 1, ..NOTHING };
/// With `sync`.
pub const TAKEOVER_SYNC: Scope = Scope { name: "takeover-sync", sync: true, ..TAKEOVER };
/// Clients hear of the new reign before they meet it.
pub const HEARD: Scope = Scope { name: "heard", promotion: true, gossip: true, ..NOTHING };
/// Edits of one item.
pub const COMPETING: Scope = Scope { name: "competing", edits: 2, one_item: true, ..NOTHING };
/// A spare machine recovers the server from the replica's copy, or the replica takes over.
pub const RECOVERY: Scope =
    Scope { name: "recovery", clients: 1, promotion: true, recovery: true, losses: 1, ..NOTHING };
/// With `sync`.
pub const RECOVERY_SYNC: Scope = Scope { name: "recovery-sync", sync: true, ..RECOVERY };
/// Nobody edits, and the spare machine may be lost on its way, twice.
pub const RIVALS: Scope = Scope { name: "rivals", edits: 0, reigns: 4, losses: 2, planned: true, ..RECOVERY };
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

/// The same in a campaign.
pub fn larger(scope: Scope) -> Scope {
    match scope.name {
        "takeover" | "takeover-sync" => Scope { edits: 2, ..scope },
        "heard" => Scope { planned: true, losses: 1, ..scope },
        "competing" => Scope { promotion: true, ..scope },
        "recovery" => Scope { clients: 2, ..scope },
        "recovery-sync" => Scope { clients: 2, reigns: 3, ..scope },
        "rivals" => Scope { clients: 2, losses: 3, ..scope },
        "server-put-back" => Scope { edits: 1, promotion: true, losses: 1, ..scope },
        "replica-put-back" => Scope { clients: 2, ..scope },
        name => panic!("no scope is called {name}"),
    }
}
