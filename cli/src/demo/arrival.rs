//! How long things take: waits driven by the devices' own events, never by looking again and again.

use std::collections::HashSet;
use std::time::Instant;

use mfpsync_proto::local::watch_event::Event;
use mfpsync_proto::local::{GetRequest, Item, ItemKey, WatchEvent, WatchRequest};
use tokio::sync::Barrier;
use tonic::{Code, Streaming};

use crate::book::Target;
use crate::command::item;
use crate::exit::Failure;
use crate::sockets::{Sockets, within};

/// Watches one kind, and returns when watching has begun.
async fn watch(sockets: &Sockets, scope: &str, kind: &str) -> Result<Streaming<WatchEvent>, Failure> {
    let request = WatchRequest { scopes: vec![scope.to_owned()], kinds: vec![kind.to_owned()] };
    let mut events = sockets.local().await?.watch(request).await?.into_inner();
    loop {
        if let Some(Event::Started(_)) = next(&mut events).await? {
            return Ok(events);
        }
    }
}

async fn next(events: &mut Streaming<WatchEvent>) -> Result<Option<Event>, Failure> {
    Ok(events.message().await?.ok_or(Failure::ConnectionLost)?.event)
}

/// Waits until `expected` different entries of a book have become visible; returns when the last did.
/// Everybody at `begun` has begun to watch before anything is written.
///
/// # Errors
/// They did not all come in time.
pub(crate) async fn entries(
    sockets: &Sockets,
    target: &Target,
    expected: usize,
    begun: &Barrier,
) -> Result<Instant, Failure> {
    within(sockets.timeout, "the arrival of every entry", async {
        let mut events = watch(sockets, &target.scope, &target.kind).await?;
        begun.wait().await;
        let mut seen: HashSet<String> = HashSet::new();
        while seen.len() < expected {
            match next(&mut events).await? {
                Some(Event::Changed(item)) => seen.extend(item.key.map(|key| key.id)),
                Some(Event::Missed(_)) => {
                    let there = item::list(sockets, &target.scope, &target.kind).await?;
                    seen.extend(there.into_iter().filter_map(|item| Some(item.key?.id)));
                }
                Some(Event::Deleted(_) | Event::Started(_)) | None => {}
            }
        }
        Ok(Instant::now())
    })
    .await
}

/// Waits until an item is as `wanted`; returns it and when it was.
///
/// # Errors
/// It did not become so in time.
pub(crate) async fn of_item(
    sockets: &Sockets,
    key: &ItemKey,
    wanted: impl Fn(&Item) -> bool,
) -> Result<(Item, Instant), Failure> {
    within(sockets.timeout, "the arrival of an edit", async {
        let mut events = watch(sockets, &key.scope, &key.kind).await?;
        loop {
            match get(sockets, key).await? {
                Some(item) if wanted(&item) => return Ok((item, Instant::now())),
                Some(_) | None => next(&mut events).await?,
            };
        }
    })
    .await
}

/// One item; nothing when it does not exist.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn get(sockets: &Sockets, key: &ItemKey) -> Result<Option<Item>, Failure> {
    let request = GetRequest { key: Some(key.clone()) };
    match sockets.local().await?.get(request).await {
        Ok(reply) => Ok(reply.into_inner().item),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
