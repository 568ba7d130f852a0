//! Devices that may serve tell each other who reigns. A server asks the others whether one of them has taken
//! over: before it serves, and now and then while it does, since two reigns may follow one parent whose
//! devices never meet. One that does not serve tells the others now and then, since a server that comes back
//! may know neither the machine that reigns nor any device that has heard of it.
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
use mfpsync_storage::master::Master;
use mfpsync_storage::model::{Capabilities, DeviceId, IssuingCertificate, Member, Promotion, Signed};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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

/// Beats between two rounds.
const EVERY: u32 = 3;

/// What this device knows of the group.
#[derive(Debug)]
pub struct Known {
    /// What its devices believe.
    pub anchor: TrustAnchor,
    /// Its history, oldest first.
    pub lineage: Vec<Signed<Promotion>>,
    /// Issuing certificates.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// Membership rows.
    pub members: Vec<Signed<Member>>,
}

impl Known {
    /// Reads what a server knows.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(master: &Db<Master>) -> Result<Self, Error> {
        let read = master.read(READ_DEADLINE, |read| {
            let head = read.founded_head()?;
            let anchor = TrustAnchor { group: head.group, root: head.root_key };
            let (lineage, issuers, members) = (read.lineage()?, read.issuers()?, read.members()?);
            Ok(Self { anchor, lineage, issuers, members })
        });
        read.await
    }

    /// Reads what a device knows besides; none if it has no group.
    async fn of_device(device: &Device) -> Result<Option<Self>, Error> {
        let Some(membership) = device.membership().await? else { return Ok(None) };
        let anchor = crate::device::anchor(&membership);
        let read = device.own.db().read(READ_DEADLINE, move |read| {
            let (lineage, issuers, members) = (read.lineage()?, read.issuers()?, read.members()?);
            Ok(Self { anchor, lineage, issuers, members })
        });
        read.await.map(Some)
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
    let records = known.lineage.iter().map(|signed| signed.record.clone()).collect();
    let mut rivals = Vec::new();
    let Ok(ours) = Lineage::new(known.anchor.group, records) else { return Ok(rivals) };
    let mut answers = say_hello(device, known, |_| true).await.map_err(|error| start_fault(&error))?;
    while let Some(answer) = answers.join_next().await {
        let Ok(Some(answer)) = answer else { continue };
        rivals.extend(judge(device, &ours, answer).await?);
    }
    Ok(rivals)
}

/// Tells the other devices that may serve who reigns, as long as this one is among them and does not serve.
///
/// # Cancel safety
/// Safe.
pub async fn keep_telling(device: Arc<Device>, stop: CancellationToken) {
    let every = device.config.heartbeat * EVERY;
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let row = device.roster.member(device.identity.device());
        if device.server.load().is_some() || row.is_none_or(|row| !may_serve(&row)) {
            continue;
        }
        let told = async {
            let Some(known) = Known::of_device(&device).await? else { return Ok(()) };
            let reigning = device.reigning();
            // What they answer is heard when this device says hello to the server it follows.
            say_hello(&device, &known, |other| Some(other.device) != reigning).await?.join_all().await;
            Ok::<_, Error>(())
        };
        if let Some(Err(error)) = stop.run_until_cancelled(told).await {
            tracing::warn!(%error, "read who reigns");
        }
    }
}

/// Which of the devices that may serve answer at all, whatever they say.
///
/// # Errors
/// The own database's.
///
/// # Cancel safety
/// Safe.
pub async fn who_answers(device: &Arc<Device>) -> Result<Vec<DeviceId>, Error> {
    let Some(known) = Known::of_device(device).await? else { return Ok(Vec::new()) };
    let answers = say_hello(device, &known, |_| true).await?.join_all().await;
    Ok(answers.into_iter().flatten().map(|answer| answer.by).collect())
}

fn may_serve(member: &Member) -> bool {
    !member.released && member.capabilities.contains(Capabilities::SERVE)
}

/// Says hello to the other devices that may serve.
async fn say_hello(
    device: &Arc<Device>,
    known: &Known,
    to: impl Fn(&Member) -> bool,
) -> Result<JoinSet<Option<Answer>>, Error> {
    let (own, anchor) = (device.identity.device(), known.anchor);
    let others = device.roster.members().into_iter();
    let others = others.filter(|member| member.device != own && may_serve(member) && to(member));
    // A machine that got a new disk is another device at the same address.
    let here = device.endpoints(&device.config.listen);
    let hello = hello(device, known).await?;
    let mut asked = JoinSet::new();
    for other in others {
        for endpoint in other.endpoints.iter().filter(|endpoint| !here.contains(endpoint)) {
            let (device, other, hello) = (device.clone(), other.clone(), hello.clone());
            let endpoint = endpoint.clone();
            asked.spawn(async move {
                let answer =
                    tokio::time::timeout(PATIENCE, greet(&device, &other, &endpoint, anchor, &hello));
                answer.await.ok()?
            });
        }
    }
    Ok(asked)
}

/// Goes on asking for as long as the server runs, also `at_once`; those that claim its reign are shown and keep
/// it from taking changes.
///
/// # Cancel safety
/// Safe.
pub async fn keep_asking(device: Arc<Device>, serving: Arc<Serving>, at_once: bool) {
    let every = device.config.heartbeat * EVERY;
    let always = async {
        let mut pause = if at_once { Duration::ZERO } else { every };
        loop {
            tokio::time::sleep(std::mem::replace(&mut pause, every)).await;
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

async fn hello(device: &Device, known: &Known) -> Result<Hello, Error> {
    let Known { anchor, lineage, issuers, members } = known;
    let own = device.own.db().read(READ_DEADLINE, |read| read.device()).await?;
    Ok(Hello {
        protocol_min: PROTOCOL_VERSION_MIN,
        protocol_max: PROTOCOL_VERSION,
        group: anchor.group,
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
    match client::greet(channel, other.public_key, anchor, hello).await {
        Ok(greeting) => {
            let records = greeting.lineage.iter().map(|signed| signed.record.clone()).collect();
            let lineage = Lineage::new(anchor.group, records).ok()?;
            let claim = Claim::of(greeting.lineage.last()?.clone(), &greeting.issuers, &greeting.members);
            Some(Answer { by: other.device, claim, lineage: Some(lineage) })
        }
        Err(Failure::Refused { refusal, .. }) => {
            let claim = refusal.claim?;
            anchor.verify_claim(&claim, &[]).ok()?;
            Some(Answer { by: other.device, claim, lineage: None })
        }
        Err(Failure::Transport | Failure::Impostor | Failure::Malformed) => None,
    }
}

/// Verified.
struct Answer {
    by: DeviceId,
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
    let released = device.roster.member(other).is_some_and(|row| row.released);
    if superseded && !released {
        device.reign.seal(&answer.claim).await?;
        return Err(Fault::with_detail(FaultCode::Superseded, format_args!("by device {other}")));
    }
    Ok((ours.is_contested_by(&epoch) && !released).then_some(answer.claim.promotion))
}
