//! Proving the copy: the replica is asked at a moment when it has everything, a reader of the server begins
//! at the same moment, and what both find is compared.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_replication::ship::Proven;
use mfpsync_storage::model::{ContentHash, Sequence};
use mfpsync_storage::physical::Position;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Replicating, State};
use crate::clock::unix_millis;
use crate::communication::Code;
use crate::db::SCAN_DEADLINE;
use crate::fault::{Fault, FaultCode};

/// Between two proofs that nobody asked for.
const PROOF_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Before the first of them, and between attempts.
const PROOF_PAUSE: Duration = Duration::from_secs(60);
/// How long a commit waits until a proof's reader has begun.
const READER: Duration = Duration::from_millis(200);

/// Why there is no proof, most of the time.
const LOST: &str = "the replica was lost before it answered";

/// The last proof, and the one that is asked for.
#[derive(Debug, Default)]
pub(super) struct Proof {
    asked: u64,
    expected: Option<(u64, ContentHash)>,
    answered: Option<(u64, Result<ContentHash, String>)>,
    /// Ends the server's own reading when nobody asks any more.
    _reading: Option<DropGuard>,
    /// How the last one that ended did.
    pub last: Option<Proved>,
}

impl Proof {
    /// The stream ended on which the replica would have answered.
    pub(super) fn give_up(&mut self) {
        *self = Self { asked: self.asked + 1, last: self.last.take(), ..Self::default() };
    }
}

/// A proof under way.
struct Asked {
    proof: u64,
    /// Where the copy is to be proven.
    position: Position,
    /// What the server's own items hash to.
    content: oneshot::Receiver<mfpsync_storage::Result<ContentHash>>,
}

/// A proof that ended.
#[derive(Debug, Clone)]
pub struct Proved {
    /// Up to where the copy was proven.
    pub sequence: Sequence,
    /// The server's wall clock, Unix milliseconds; for people.
    pub at: u64,
    /// What was wrong; none if all was right.
    pub wrong: Option<String>,
}

impl Replicating {
    /// Has the replica prove its copy soon after it has everything, and every day.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn prove_daily(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PROOF_PAUSE).await;
            if self.standing().is_some_and(|standing| standing.live) {
                match self.prove().await {
                    Ok(_) => tokio::time::sleep(PROOF_EVERY).await,
                    Err(why) => tracing::info!(why, "the copy was not proven"),
                }
            }
        }
    }

    /// Asks the replica to prove its copy, and waits for what comes of it.
    ///
    /// # Errors
    /// Why there is no proof.
    ///
    /// # Cancel safety
    /// The replica may be asked although the future was dropped.
    pub async fn prove(self: &Arc<Self>) -> Result<Proved, String> {
        if self.state().set.is_none() {
            return Err("no replica is set".to_owned());
        }
        let mut changed = self.changed.subscribe();
        let Asked { proof, position, content } = self.ask().await?;
        let content = content.await.map_err(|_| "the server was stopped".to_owned())?;
        {
            let mut state = self.state();
            if state.proof.asked != proof {
                return Err(LOST.to_owned());
            }
            let content =
                content.map_err(|error| format!("the server's own data cannot be read: {error}"))?;
            state.proof.expected = Some((proof, content));
            self.conclude(&mut state);
        }
        loop {
            {
                let state = self.state();
                let ended = state.proof.last.as_ref().filter(|last| last.sequence >= position.sequence);
                if let (true, Some(last)) = (state.proof.expected.is_none(), ended) {
                    return Ok(last.clone());
                }
                if state.proof.asked != proof {
                    return Err(LOST.to_owned());
                }
            }
            if changed.changed().await.is_err() {
                return Err("the server was stopped".to_owned());
            }
        }
    }

    /// Sends the question at a moment when the replica is told of everything, and has a reader begin at
    /// the same.
    async fn ask(self: &Arc<Self>) -> Result<Asked, String> {
        let (tell, told) = oneshot::channel();
        let this = self.clone();
        self.master.store().with_pages(move |pages| {
            let asked = pages.map_err(|error| error.to_string()).and_then(|(pages, _)| {
                let mut state = this.state();
                let state = &mut *state;
                let proof = state.proof.asked + 1;
                let position = state.shipping.prove(proof, pages);
                let position = position.ok_or("the replica is not connected or has not caught up")?;
                let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
                let (result, content) = oneshot::channel();
                let stop = CancellationToken::new();
                let reading = Some(stop.clone().drop_guard());
                this.master.store().read_unless(
                    move || stop.is_cancelled(),
                    SCAN_DEADLINE,
                    move |read| {
                        // The state of before the next commit.
                        read.founded_head()?;
                        // Nobody waits any more when this came too late.
                        let _waited_for = begun.send(());
                        let hashes = read.content_hashes()?;
                        Ok(hashes.into_values().fold(ContentHash::EMPTY, ContentHash::and))
                    },
                    move |content| drop(result.send(content)),
                );
                if has_begun.recv_timeout(READER).is_err() {
                    return Err("the server is busy; try again".to_owned());
                }
                let last = state.proof.last.take();
                state.proof = Proof { asked: proof, _reading: reading, last, ..Proof::default() };
                this.pump(state, pages);
                Ok(Asked { proof, position, content })
            });
            drop(tell.send(asked));
        });
        told.await.unwrap_or_else(|_| Err("the server was stopped".to_owned()))
    }

    /// The replica has answered.
    pub(super) fn proven(&self, state: &mut State, proven: Proven) {
        state.proof.answered = Some((proven.proof, proven.content));
        self.conclude(state);
    }

    /// Compares what the replica said of a proof with what it should be, when both are known.
    fn conclude(&self, state: &mut State) {
        let (Some((asked, expected)), Some((answered, content))) =
            (&state.proof.expected, &state.proof.answered)
        else {
            return;
        };
        if asked != answered {
            return;
        }
        let wrong = match content {
            Ok(content) if content == expected => None,
            Ok(_) => Some("its items are not the server's".to_owned()),
            Err(wrong) => Some(wrong.clone()),
        };
        let sequence = state.shipping.durable().map_or(Sequence::ZERO, |durable| durable.sequence);
        match &wrong {
            None => self.faults.clear(FaultCode::ReplicaWrong),
            Some(wrong) => self.faults.set(Fault::with_detail(FaultCode::ReplicaWrong, wrong)),
        }
        let code = if wrong.is_none() { Code::ReplicaProven } else { Code::ReplicaWrong };
        self.record(state, code);
        let last = Some(Proved { sequence, at: unix_millis(), wrong });
        state.proof = Proof { last, asked: state.proof.asked, ..Proof::default() };
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_is_given_up_ends_its_reading_and_takes_no_answer() {
        let stop = CancellationToken::new();
        let reading = Some(stop.clone().drop_guard());
        let mut proof = Proof { asked: 3, _reading: reading, ..Proof::default() };
        proof.give_up();
        assert!(stop.is_cancelled());
        assert_ne!(proof.asked, 3);
    }
}
