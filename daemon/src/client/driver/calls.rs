//! What is asked of the other side: the dial, the greeting, pushes and the stream. Each runs beside the round, which
//! hears how it ended.

use mfpsync_replication::message::{Claim, Follow, FollowEvent, Hello, Push, Report};
use mfpsync_replication::round::{Event, Failure, LinkEvent, LinkId, PushOrder};
use mfpsync_replication::wire as convert;
use mfpsync_storage::local::{LocalRead, LocalWrite};
use mfpsync_storage::model::{Cursor, Epoch, GroupId, Held, IssuingCertificate, Signed};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::{Connection, DIAL, Driver, looking, outbox};
use crate::authority::TrustAnchor;
use crate::client::link::{self, LinkError, Servers};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::net::dial::DialError;

/// Events of the follow stream read ahead of the database.
const FOLLOW_AHEAD: usize = 1;

impl Driver {
    pub(super) async fn dial(&mut self, link: LinkId, endpoint: String) {
        self.seek.dialling();
        let ended = self.stop.child_token();
        self.connection = Some(Connection {
            link,
            channel: None,
            peer: None,
            proven: false,
            follow: None,
            ended: ended.clone(),
        });
        let device = self.device.clone();
        let dialled = async {
            let servers = Servers::of(&device).await.map_err(|error| (error.into(), true))?;
            match servers.meet(&device, &endpoint, DIAL).await {
                Ok((channel, peer)) => Ok((channel, peer, servers.may_serve(&peer))),
                Err(LinkError::Dial(DialError::Refused(refusal, by))) => {
                    let may_serve = servers.may_serve(&by);
                    Err((LinkError::Dial(DialError::Refused(refusal, by)), may_serve))
                }
                Err(error) => Err((error, true)),
            }
        };
        // The round waits for nothing else meanwhile, and a stop ends the attempt.
        let dialled = tokio::select! {
            dialled = dialled => dialled,
            () = ended.cancelled() => return,
        };
        let event = match dialled {
            Ok((channel, peer, may_serve)) => {
                if let Some(connection) = &mut self.connection {
                    connection.channel = Some(channel);
                    (connection.peer, connection.proven) = (Some(peer), may_serve);
                }
                LinkEvent::Dialled
            }
            Err((error, may_serve)) => {
                let failure = link::proven(link::not_dialled(error), self.anchor, &self.issuers);
                let failure = if may_serve { failure } else { link::hearsay(failure) };
                LinkEvent::Failed(if self.seek.is_hint(&endpoint) {
                    looking::misled(failure)
                } else {
                    failure
                })
            }
        };
        self.step(Event::Link(link, event));
    }

    pub(super) fn hello(&self, link: LinkId, hello: Hello) {
        let (device, anchor, issuers) = (self.device.clone(), self.anchor, self.issuers.clone());
        let Some((peer, proven)) = self.connection.as_ref().and_then(|at| Some((at.peer?, at.proven))) else {
            return;
        };
        self.call(link, move |channel| async move {
            let hello = with_proof(&device, hello).await;
            let greeted = link::greet(channel, peer, anchor, &hello).await;
            let greeted =
                greeted.and_then(|greeting| link::not_released(&device, peer, &greeting).map(|()| greeting));
            match greeted {
                Ok(greeting) => LinkEvent::Greeted(Box::new(greeting)),
                Err(failure) => {
                    let failure = link::proven(failure, anchor, &issuers);
                    LinkEvent::Failed(if proven { failure } else { link::hearsay(failure) })
                }
            }
        });
    }

    /// Makes a call on the connection; its answer comes as an event.
    fn call<F>(&self, link: LinkId, call: impl FnOnce(Channel) -> F)
    where
        F: Future<Output = LinkEvent> + Send + 'static,
    {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (call, ended, answers) = (call(channel.clone()), ended.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let answer = tokio::select! {
                answer = call => answer,
                () = ended.cancelled() => return,
            };
            // The driver is gone when the part was stopped.
            drop(answers.send((link, answer)).await);
        });
    }

    pub(super) async fn push(&mut self, link: LinkId, order: PushOrder) {
        let read =
            move |read: &LocalRead<'_>| Ok((read.outbox(order.operations, order.bytes)?, outbox(read)?));
        let (records, outbox) = match self.device.own.db().read(READ_DEADLINE, read).await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "read the outbox");
                return self.step(Event::Link(link, LinkEvent::Failed(Failure::Transport)));
            }
        };
        if records.is_empty() {
            return self.step(Event::Link(link, LinkEvent::OutboxEmpty(outbox)));
        }
        let (numbers, operations): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let push = Push {
            group: self.group,
            incarnation: self.incarnation,
            epoch: order.epoch,
            low_water: order.low_water,
            operations,
        };
        let (anchor, issuers) = (self.anchor, self.issuers.clone());
        self.call(link, move |channel| async move {
            let reply = link::client(channel).push(convert::push_to_wire(push)).await;
            match reply.map(|reply| convert::push_answer_from_wire(reply.into_inner(), &numbers)) {
                Ok(Ok(answer)) => LinkEvent::PushAnswered(answer),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "read the answer to a push");
                    LinkEvent::Failed(Failure::Malformed)
                }
                Err(status) => push_failed(link::proven(link::failed(&status), anchor, &issuers)),
            }
        });
    }

    /// Opens the follow stream; its events are read ahead by one, and no further.
    pub(super) fn follow(&mut self, link: LinkId, follow: Follow) {
        let Some(Connection { channel: Some(channel), ended, follow: slot, .. }) = &mut self.connection
        else {
            return;
        };
        let (to, events) = mpsc::channel(FOLLOW_AHEAD);
        *slot = Some(events);
        let (channel, ended, anchor, issuers) =
            (channel.clone(), ended.clone(), self.anchor, self.issuers.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = read_stream(channel, anchor, issuers, follow, to) => {}
                () = ended.cancelled() => {}
            }
        });
        tracing::debug!(link = link.0, "follow");
    }

    /// Tells a server that reigns anew, once, what this device holds of the reign before.
    pub(super) fn report_held(&self, epoch: Epoch) {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (device, group) = (self.device.clone(), self.group);
        let (channel, ended) = (channel.clone(), ended.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                told = tell_held(&device, channel, group, epoch) => if let Err(error) = told {
                    tracing::info!(%error, "tell what this device holds; the next connection does");
                },
                () = ended.cancelled() => {}
            }
        });
    }

    /// Tells the server how far this device is.
    pub(super) fn confirm(&self, cursor: Cursor, settled: bool) {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (group, incarnation) = (self.group, self.incarnation);
        let held = Follow { group, incarnation, cursor: Some(cursor), settled };
        let (channel, ended) = (channel.clone(), ended.clone());
        self.tasks.spawn(async move {
            let mut client = link::client(channel);
            tokio::select! {
                confirmed = client.confirm(convert::follow_to_wire(&held)) => if let Err(status) = confirmed {
                    // The next follow says the same.
                    tracing::debug!(code = ?status.code(), "confirm a position");
                },
                () = ended.cancelled() => {}
            }
        });
    }

    pub(super) fn disconnect(&mut self, link: LinkId) {
        if let Some(connection) = self.connection.take_if(|connection| connection.link == link) {
            connection.ended.cancel();
        }
    }
}

async fn tell_held(
    device: &Device,
    channel: Channel,
    group: GroupId,
    epoch: Epoch,
) -> std::result::Result<(), link::LinkError> {
    let report = device.own.db().read(READ_DEADLINE, |read| read.report()).await?;
    let Some(record) = report else { return Ok(()) };
    let held = Held::decode(&record).map_err(mfpsync_storage::Error::from)?;
    let report = Report { group, epoch, held };
    link::client(channel).report(convert::report_to_wire(&report)).await?;
    let told = move |db: &LocalWrite<'_>| {
        // Another reign may have begun meanwhile, with another report.
        if db.report()?.as_ref() == Some(&record) {
            db.reported()?
        }
        Ok(((), Vec::new()))
    };
    Ok(device.own.write(told).await?)
}

/// A push that was refused rests; one that got no answer says that the connection is broken.
fn push_failed(failure: Failure) -> LinkEvent {
    match failure {
        Failure::Refused { .. } => LinkEvent::PushFailed(failure),
        Failure::Transport | Failure::Impostor | Failure::Malformed => LinkEvent::Failed(failure),
    }
}

async fn read_stream(
    channel: Channel,
    anchor: TrustAnchor,
    issuers: Vec<Signed<IssuingCertificate>>,
    follow: Follow,
    to: mpsc::Sender<std::result::Result<FollowEvent, Failure>>,
) {
    let mut stream = match link::client(channel).follow(convert::follow_to_wire(&follow)).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            // The driver is gone when the connection was dropped.
            return drop(to.send(Err(link::proven(link::failed(&status), anchor, &issuers))).await);
        }
    };
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => link::follow_event(anchor, &issuers, event).transpose(),
            Ok(None) => Some(Err(Failure::Transport)),
            Err(status) => Some(Err(link::proven(link::failed(&status), anchor, &issuers))),
        };
        // What only a newer client knows.
        let Some(event) = event else { continue };
        let ends = event.is_err();
        if to.send(event).await.is_err() || ends {
            return;
        }
    }
}

/// The hello with what proves its claim to whoever has not met the device that reigns.
async fn with_proof(device: &Device, mut hello: Hello) -> Hello {
    let Some(claim) = hello.claim.take() else { return hello };
    let records = device.own.db().read(READ_DEADLINE, |read| Ok((read.issuers()?, read.members()?))).await;
    hello.claim = Some(match records {
        Ok((issuers, members)) => Claim::of(claim.promotion, &issuers, &members),
        Err(error) => {
            tracing::warn!(%error, "read what proves the highest reign");
            claim
        }
    });
    hello
}
