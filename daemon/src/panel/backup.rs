//! Archives for the operator: what is set, what lies on the share, and jobs. Thin over [`crate::backup`].

use std::pin::Pin;
use std::sync::Arc;

use mfpsync_backup::archive::{Key, Lock, new_identity};
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::smb::{Dialect, Encryption, Secret};
use mfpsync_backup::store::{ArchiveStore, Cancel};
use mfpsync_proto::backup as wire;
use mfpsync_proto::backup::backup_server::Backup;
use mfpsync_storage::model::{DeviceId, GroupId, Kind, Scope};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::replication::opened_if_given;
use super::service::Session;
use crate::backup::{
    BringingBack, Change, JobError, Keep, Making, Order, Restoring, Schedule, Settings, SettingsError, Share,
    Tools, Wanted, Whose, list, protection_text, shown_archive,
};
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::device::Device;
use crate::records;
use crate::refusal;

/// Serves `mfpsync.backup.v1.Backup`.
#[derive(Debug, Clone)]
pub struct BackupService(pub Arc<Session>);

impl BackupService {
    fn device(&self) -> &Arc<Device> {
        &self.0.device
    }

    fn begin(&self, order: Order) -> Result<Response<wire::Job>, Status> {
        self.device().archiving.begin(order, false).map(Response::new).map_err(|kind| {
            Status::unavailable(format!(
                "another job with archives is under way ({}); nothing was begun: wait for it or stop it \
                 (`mfpsync backup watch`, `mfpsync backup cancel`)",
                kind.as_str_name().trim_start_matches("JOB_KIND_").to_lowercase().replace('_', " ")
            ))
        })
    }
}

#[tonic::async_trait]
impl Backup for BackupService {
    async fn settings(
        &self,
        _: Request<wire::SettingsRequest>,
    ) -> Result<Response<wire::SettingsReply>, Status> {
        Ok(Response::new(settings(self.device(), self.device().archiving.settings(), false)))
    }

    async fn set(&self, request: Request<wire::SetRequest>) -> Result<Response<wire::SettingsReply>, Status> {
        let request = request.into_inner();
        let moves = request.share.is_some() || !request.password.is_empty();
        let change = change(request)?;
        let device = self.device().clone();
        let setting = tokio::task::spawn_blocking(move || {
            let (now, forgotten) = device.archiving.set(change, &device.settings.now().backup)?;
            Ok(settings(&device, now, forgotten))
        });
        let reply = setting.await.map_err(|_| interrupted())?.map_err(|error| unset(&error))?;
        if moves {
            self.device().communication.record(Event::new(Code::ShareSet));
        }
        Ok(Response::new(reply))
    }

    async fn forget(&self, _: Request<wire::ForgetRequest>) -> Result<Response<wire::ForgetReply>, Status> {
        let device = self.device().clone();
        let forgetting = tokio::task::spawn_blocking(move || device.archiving.forget());
        let was_set = forgetting.await.map_err(|_| interrupted())?.map_err(|error| unset(&error))?;
        self.device().faults.clear(crate::fault::FaultCode::Backup);
        self.device().communication.record(Event::new(Code::ShareSet));
        Ok(Response::new(wire::ForgetReply { was_set }))
    }

    async fn test(&self, request: Request<wire::TestRequest>) -> Result<Response<wire::TestReply>, Status> {
        let wire::TestRequest { share: typed, password } = request.into_inner();
        let typed = share(typed.ok_or_else(|| Status::invalid_argument("name the share to try"))?)?;
        let password = Secret::new(password);
        let whose = Whose::of(self.device(), None, None).await.map_or(GroupId([0; 16]), |whose| whose.group);
        let device = self.device().clone();
        let reply = stoppable(move |cancel| {
            let target = typed.target(whose, password, &device.settings.now().backup)?;
            let mut connection = Tools::of(&device)?.store(target)?.connect(cancel)?;
            let free_bytes = connection.room()?;
            Ok(wire::TestReply { protection: protection_text(connection.protection()), free_bytes })
        });
        Ok(Response::new(reply.await?))
    }

    async fn new_key(&self, _: Request<wire::NewKeyRequest>) -> Result<Response<wire::NewKeyReply>, Status> {
        let (identity, recipient) = new_identity();
        Ok(Response::new(wire::NewKeyReply { identity: identity.to_string(), recipient }))
    }

    async fn archives(
        &self,
        request: Request<wire::ArchivesRequest>,
    ) -> Result<Response<wire::ArchivesReply>, Status> {
        let wire::ArchivesRequest { group_id, recovery_kit, kit_passphrase } = request.into_inner();
        let root = opened_if_given(recovery_kit, kit_passphrase).await?;
        let whose = Whose::of(self.device(), group(&group_id)?, root.as_ref())
            .await
            .map_err(|error| failed(&error))?;
        let device = self.device().clone();
        let reply = stoppable(move |cancel| {
            let target = device.archiving.settings().target(whose.group, &device.settings.now().backup)?;
            let listing = list(&device, target, &whose, cancel)?;
            let unusable = listing.unusable.into_iter();
            Ok(wire::ArchivesReply {
                group_id: whose.group.to_string(),
                archives: listing
                    .archives
                    .iter()
                    .map(|found| shown_archive(found.id, &found.manifest, found.size, found.verified))
                    .collect(),
                unusable: unusable.map(|(id, why)| wire::Unusable { id: id.to_string(), why }).collect(),
                free_bytes: listing.room,
                protection: protection_text(listing.protection),
            })
        });
        Ok(Response::new(reply.await?))
    }

    async fn begin(&self, request: Request<wire::BeginRequest>) -> Result<Response<wire::Job>, Status> {
        self.0.server()?;
        let wire::BeginRequest { passphrase, accept_missing } = request.into_inner();
        let passphrase = Zeroizing::new(passphrase);
        let invalid = |error: mfpsync_backup::archive::KeyError| Status::invalid_argument(error.to_string());
        let lock =
            if passphrase.is_empty() { None } else { Some(Lock::passphrase(&passphrase).map_err(invalid)?) };
        if lock.is_none() && self.device().archiving.settings().recipients.is_empty() {
            return Err(Status::failed_precondition(
                "nothing is set that seals archives; nothing was begun: give a passphrase, or set a recipient \
                 (`mfpsync backup key`)",
            ));
        }
        self.begin(Order::Backup(Making { lock, accept_missing }))
    }

    async fn drill(&self, request: Request<wire::DrillRequest>) -> Result<Response<wire::Job>, Status> {
        let wire::DrillRequest { archive_id, key } = request.into_inner();
        let key = key.map(|key| self::key(Some(key))).transpose()?;
        self.begin(Order::Drill(wanted(&archive_id, "")?, key))
    }

    async fn preview(&self, request: Request<wire::RestoreRequest>) -> Result<Response<wire::Job>, Status> {
        let order = restoring(request.into_inner()).await?;
        self.begin(Order::Preview(order))
    }

    async fn restore(&self, request: Request<wire::RestoreRequest>) -> Result<Response<wire::Job>, Status> {
        let order = restoring(request.into_inner()).await?;
        self.begin(Order::Restore(order))
    }

    async fn bring_back(
        &self,
        request: Request<wire::BringBackRequest>,
    ) -> Result<Response<wire::Job>, Status> {
        let request = request.into_inner();
        self.0.server()?;
        let invalid = |error| Status::invalid_argument(format!("{error}"));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let scope = given(&request.scope).map(|text| Scope::parse(&text)).transpose().map_err(invalid)?;
        let kind = given(&request.kind).map(|text| Kind::parse(&text)).transpose().map_err(invalid)?;
        let item = given(&request.item_id).map(|id| (id, request.device.clone()));
        if item.is_some() && (scope.is_none() || kind.is_none()) {
            return Err(Status::invalid_argument("an item is named by its scope, its kind and its id"));
        }
        if !request.device.is_empty() && DeviceId::from_hex(&request.device).is_none() {
            return Err(Status::invalid_argument("a device's id is 32 hex digits; see the device list"));
        }
        self.begin(Order::BringBack(BringingBack {
            wanted: wanted(&request.archive_id, &request.group_id)?,
            key: key(request.key)?,
            scope,
            kind,
            item,
            replace: request.replace,
            operator: records::operator(self.device(), request.actor)?,
            dry_run: request.dry_run,
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::Job, Status>> + Send>>;

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (to, jobs) = mpsc::channel(1);
        let (session, mut watch) = (self.0.clone(), self.device().archiving.watch());
        self.0.tasks.spawn(async move {
            let following = async {
                loop {
                    let job = watch.borrow_and_update().clone();
                    let ended = job.ended;
                    // A slow caller is told of the latest, not of each.
                    if to.send(Ok(job)).await.is_err() || ended || watch.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = following => {}
                // The caller may be gone already.
                () = session.stop.cancelled() => drop(to.try_send(Err(refusal::stopping()))),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(jobs))))
    }

    async fn cancel(&self, _: Request<wire::CancelRequest>) -> Result<Response<wire::CancelReply>, Status> {
        Ok(Response::new(wire::CancelReply { was_under_way: self.device().archiving.cancel() }))
    }
}

/// How backups are doing; none where nothing is set and nothing was made.
pub(super) fn standing(device: &Device) -> Option<wire::Standing> {
    let archiving = &device.archiving;
    let settings = archiving.settings();
    let newest = archiving.remembered(|ledger| {
        ledger.newest().map(|(id, manifest)| shown_archive(id, manifest, Some(manifest.archive.bytes), true))
    });
    let job = archiving.watch().borrow().clone();
    if settings == Settings::default() && newest.is_none() && job.number == 0 {
        return None;
    }
    let serves = device.server.load().is_some();
    let next = archiving.next(unix_millis() / 1_000).filter(|_| serves);
    let failure = archiving.remembered(|ledger| ledger.failure().cloned());
    let (why, at, times) =
        failure.map_or_else(Default::default, |failure| (failure.why, failure.at, failure.times));
    let drill = archiving.remembered(|ledger| ledger.drill().cloned());
    Some(wire::Standing {
        newest,
        next_unix_millis: next.map_or(0, |next| next * 1_000),
        failure: why,
        failed_unix_millis: at,
        failures: times,
        not_removed: archiving.remembered(|ledger| ledger.why_not_removed().unwrap_or_default().to_owned()),
        drill: drill.map(|drill| wire::Drill {
            at_unix_millis: drill.at,
            archive_id: drill.id,
            opened: drill.opened,
            wrong: drill.wrong.unwrap_or_default(),
        }),
        job: (job.number > 0).then_some(job),
    })
}

fn settings(device: &Device, now: Settings, password_forgotten: bool) -> wire::SettingsReply {
    let share = now.share.map(|share| wire::Share {
        host: share.host,
        port: share.port.into(),
        share: share.share,
        folder: share.folder,
        domain: share.domain,
        user: share.user,
        minimum: match share.minimum {
            Dialect::Smb300 => wire::Dialect::Smb300,
            Dialect::Smb302 => wire::Dialect::Smb302,
            Dialect::Smb311 => wire::Dialect::Smb311,
        }
        .into(),
        encryption: match share.encryption {
            Encryption::Required => wire::Encryption::Required,
            Encryption::Preferred => wire::Encryption::Preferred,
            Encryption::Off => wire::Encryption::Off,
        }
        .into(),
    });
    let Schedule { every_hours, at_minute } = now.schedule;
    let Keep { newest, days, weeks, months } = now.keep;
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    wire::SettingsReply {
        share,
        has_password: now.password.is_some(),
        recipients: now.recipients,
        schedule: now.schedule.is_on().then_some(wire::Schedule { every_hours, at_minute }),
        keep: Some(wire::Keep {
            newest: small(newest),
            days: small(days),
            weeks: small(weeks),
            months: small(months),
        }),
        password_forgotten,
        standing: standing(device),
    }
}

fn change(request: wire::SetRequest) -> Result<Change, Status> {
    let keep = request.keep.map(|keep| Keep {
        newest: keep.newest as usize,
        days: keep.days as usize,
        weeks: keep.weeks as usize,
        months: keep.months as usize,
    });
    let schedule = request
        .schedule
        .map(|schedule| Schedule { every_hours: schedule.every_hours, at_minute: schedule.at_minute });
    Ok(Change {
        share: request.share.map(share).transpose()?,
        password: (!request.password.is_empty()).then(|| Secret::new(request.password)),
        recipients: (!request.recipients.is_empty()).then_some(request.recipients),
        schedule,
        keep,
    })
}

fn share(share: wire::Share) -> Result<Share, Status> {
    let (minimum, encryption) = (share.minimum(), share.encryption());
    let default = Share::default();
    Ok(Share {
        port: match share.port {
            0 => default.port,
            port => u16::try_from(port).map_err(|_| Status::invalid_argument("a port is 1 to 65,535"))?,
        },
        host: share.host,
        share: share.share,
        folder: share.folder.trim_matches('/').to_owned(),
        domain: share.domain,
        user: share.user,
        minimum: match minimum {
            wire::Dialect::Smb300 => Dialect::Smb300,
            wire::Dialect::Smb302 => Dialect::Smb302,
            wire::Dialect::Unspecified | wire::Dialect::Smb311 => Dialect::Smb311,
        },
        encryption: match encryption {
            wire::Encryption::Required => Encryption::Required,
            wire::Encryption::Unspecified | wire::Encryption::Preferred => Encryption::Preferred,
            wire::Encryption::Off => Encryption::Off,
        },
    })
}

async fn restoring(request: wire::RestoreRequest) -> Result<Restoring, Status> {
    Ok(Restoring {
        wanted: wanted(&request.archive_id, "")?,
        key: key(request.key)?,
        root: opened_if_given(request.recovery_kit, request.kit_passphrase).await?,
        accept_loss_of: request.accept_loss_of,
    })
}

fn wanted(id: &str, group_id: &str) -> Result<Wanted, Status> {
    let bad = || Status::invalid_argument("no archive is called so; see the list of archives");
    let id = if id.is_empty() { None } else { Some(ArchiveId::parse(id).ok_or_else(bad)?) };
    Ok(Wanted { id, group: group(group_id)? })
}

fn group(id: &str) -> Result<Option<GroupId>, Status> {
    let bad = || Status::invalid_argument("a group's id is 32 hex digits");
    if id.is_empty() { Ok(None) } else { GroupId::from_hex(id).map(Some).ok_or_else(bad) }
}

fn key(key: Option<wire::Key>) -> Result<Key, Status> {
    let key = key.unwrap_or_default();
    let (passphrase, identity) = (Zeroizing::new(key.passphrase), Zeroizing::new(key.identity));
    let key = match (passphrase.as_str(), identity.as_str()) {
        ("", "") => {
            return Err(Status::invalid_argument(
                "give what opens the archive: a passphrase, or an identity",
            ));
        }
        (passphrase, "") => Key::passphrase(passphrase),
        ("", identity) => Key::identity(identity),
        (_, _) => {
            return Err(Status::invalid_argument(
                "an archive is opened by a passphrase or an identity, not by both",
            ));
        }
    };
    key.map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Runs blocking work that ends soon after its caller is gone.
async fn stoppable<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T, JobError> + Send + 'static,
) -> Result<T, Status> {
    let cancel = Cancel::new().map_err(|error| Status::unavailable(error.to_string()))?;
    let switch = StopOnDrop(cancel.clone());
    let done = tokio::task::spawn_blocking(move || work(&cancel)).await;
    drop(switch);
    done.map_err(|_| interrupted())?.map_err(|error| failed(&error))
}

struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn failed(error: &JobError) -> Status {
    match error {
        JobError::Settings(error) => unset(error),
        error if error.passes() => Status::unavailable(error.explained()),
        error => Status::failed_precondition(error.explained()),
    }
}

fn unset(error: &SettingsError) -> Status {
    match error {
        SettingsError::Invalid(_) => Status::invalid_argument(format!("{error}; nothing was changed")),
        SettingsError::NoShare | SettingsError::NoPassword | SettingsError::Host(_) => {
            Status::failed_precondition(error.to_string())
        }
        SettingsError::Store(_) | SettingsError::Damaged(_) => Status::unavailable(error.to_string()),
    }
}

fn interrupted() -> Status {
    Status::internal("looking after archives was interrupted")
}
