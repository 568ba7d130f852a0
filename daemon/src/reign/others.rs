//! A server asks the devices that could have taken over whether one of them has: before it serves, and now and
//! then while it does, since two reigns may follow one parent whose devices never meet.
//!
//! Their silence proves nothing and keeps nobody waiting for long: who has seen a higher reign says so at
//! its next hello, and this server is sealed then.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use mfpsync_replication::lineage::{Lineage, Relation};
use mfpsync_replication::message::{Claim, Hello};
use mfpsync_replication::round::Failure;
use mfpsync_storage::Error;
use mfpsync_storage::master::{Head, Master};
use mfpsync_storage::model::{Capabilities, IssuingCertificate, Member, Promotion, Signed};
use tokio::task::JoinSet;

use crate::authority::TrustAnchor;
use crate::client;
use crate::db::{Db, READ_DEADLINE};
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::server::serving::Serving;
use crate::storage_fault::start_fault;
use crate::tls::ClientTls;

/// How long the others may take: a switched off device costs a start that much.
const PATIENCE: Duration = Duration::from_secs(2);

/// Beats between two rounds of questions.
const EVERY: u32 = 6;

/// What this server's database says of the group.
#[derive(Debug)]
pub struct Known {
    /// Where it stands.
    pub head: Head,
    /// Its history, oldest first.
    pub lineage: Vec<Signed<Promotion>>,
    /// Issuing certificates.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// Membership rows.
    pub members: Vec<Signed<Member>>,
}

impl Known {
    /// Reads it.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(master: &Db<Master>) -> Result<Self, Error> {
        let read = master.read(READ_DEADLINE, |read| {
            let (lineage, issuers, members) = (read.lineage()?, read.issuers()?, read.members()?);
            Ok(Self { head: read.founded_head()?, lineage, issuers, members })
        });
        read.await
    }
}

/// Asks every other device that may serve; one that reigns over a later part of the same history seals this
/// server. The verified records of those that claim the same reign.
///
/// # Errors
/// The fault: superseded, or the own database's.
///
/// # Cancel safety
/// Safe.
pub async fn ask(device: &Arc<Device>, known: &Known) -> Result<Vec<Signed<Promotion>>, Fault> {
    let Known { head, lineage, .. } = known;
    let own = device.identity.device();
    let may_serve = |member: &Member| !member.released && member.capabilities.contains(Capabilities::SERVE);
    let others =
        device.roster.members().into_iter().filter(|member| member.device != own && may_serve(member));
    let anchor = TrustAnchor { group: head.group, root: head.root_key };
    let hello = hello(device, known).await?;
    let mut asked = JoinSet::new();
    for other in others {
        for endpoint in other.endpoints.clone() {
            let (device, other, hello) = (device.clone(), other.clone(), hello.clone());
            asked.spawn(async move {
                let answer =
                    tokio::time::timeout(PATIENCE, greet(&device, &other, &endpoint, anchor, &hello));
                answer.await.ok()?
            });
        }
    }
    let records = lineage.iter().map(|signed| signed.record.clone()).collect();
    let mut rivals = Vec::new();
    let Ok(ours) = Lineage::new(head.group, records) else { return Ok(rivals) };
    while let Some(answer) = asked.join_next().await {
        let Ok(Some(answer)) = answer else { continue };
        rivals.extend(judge(device, &ours, answer).await?);
    }
    Ok(rivals)
}

/// Goes on asking for as long as the server runs; those that claim its reign are shown and keep it from taking
/// changes.
///
/// # Cancel safety
/// Safe.
pub async fn keep_asking(device: Arc<Device>, serving: Arc<Serving>) {
    let every = device.config.heartbeat * EVERY;
    let always = async {
        loop {
            tokio::time::sleep(every).await;
            let known = match Known::of(&serving.master).await {
                Ok(known) => known,
                Err(error) => {
                    tracing::warn!(%error, "read the lineage");
                    continue;
                }
            };
            match ask(&device, &known).await {
                Ok(rivals) => rivals.iter().for_each(|rival| serving.contest(rival)),
                // Shown, and followed by the supervisor.
                Err(fault) => tracing::warn!(%fault, "ask the others who reigns"),
            }
        }
    };
    tokio::select! {
        () = always => {}
        () = serving.stop.cancelled() => {}
    }
}

async fn hello(device: &Device, known: &Known) -> Result<Hello, Fault> {
    let Known { head, lineage, issuers, members } = known;
    let own = device.own.db().read(READ_DEADLINE, |read| read.device()).await;
    let own = own.map_err(|error| start_fault(&error))?;
    Ok(Hello {
        protocol_min: PROTOCOL_VERSION_MIN,
        protocol_max: PROTOCOL_VERSION,
        group: head.group,
        incarnation: own.incarnation,
        claim: lineage.last().map(|last| Claim::of(last.clone(), issuers, members)),
        last_operation: own.last_operation,
        endpoints: Vec::new(),
        issuing_key: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// What the device at `endpoint` says of itself: the reigns it follows, or who reigns instead of this server.
async fn greet(
    device: &Device,
    other: &Member,
    endpoint: &str,
    anchor: TrustAnchor,
    hello: &Hello,
) -> Option<Answer> {
    let tls = ClientTls::sync(&device.identity, other.public_key).ok()?;
    let channel = crate::net::dial::dial(endpoint, &tls, PATIENCE).await.ok()?;
    match client::greet(channel, anchor, hello).await {
        Ok(greeting) => {
            let records = greeting.lineage.iter().map(|signed| signed.record.clone()).collect();
            let lineage = Lineage::new(anchor.group, records).ok()?;
            let claim = Claim::of(greeting.lineage.last()?.clone(), &greeting.issuers, &greeting.members);
            Some(Answer { claim, lineage: Some(lineage) })
        }
        Err(Failure::Refused { refusal, .. }) => {
            let claim = refusal.claim?;
            anchor.verify_claim(&claim, &[]).ok()?;
            Some(Answer { claim, lineage: None })
        }
        Err(Failure::Transport | Failure::Impostor | Failure::Malformed) => None,
    }
}

/// Verified.
struct Answer {
    claim: Claim,
    /// None if it was only a claim.
    lineage: Option<Lineage>,
}

/// The record of a rival.
async fn judge(device: &Device, ours: &Lineage, answer: Answer) -> Result<Option<Signed<Promotion>>, Fault> {
    let Promotion { epoch, device: other, .. } = answer.claim.promotion.record;
    let superseded = match answer.lineage.map(|theirs| ours.relation(&theirs)) {
        Some(Relation::Extended { .. } | Relation::Replaced { .. }) => true,
        Some(Relation::Forked { .. } | Relation::Same | Relation::Behind | Relation::Unrelated) => false,
        None => epoch.number > ours.highest().epoch.number,
    };
    if superseded {
        device.reign.seal(&answer.claim).await?;
        return Err(Fault::with_detail(FaultCode::Superseded, format_args!("by device {other}")));
    }
    Ok(ours.is_contested_by(&epoch).then_some(answer.claim.promotion))
}
