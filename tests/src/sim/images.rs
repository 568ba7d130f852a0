//! Disks that are put back to an earlier image of themselves, and disks that are replaced by empty ones.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mfpsync_daemon::control_file::ControlFile;
use mfpsync_daemon::role::Part;
use mfpsync_storage::Inline;
use mfpsync_storage::local::Local;
use mfpsync_storage::model::{Incarnation, OperationNumber};
use mfpsync_storage::physical::PAGE_BYTES;
use rand::RngExt;
use tempfile::TempDir;

use super::house::{House, somewhere};
use super::reigns::Line;
use super::swarm::{MINUTE, SECOND};
use super::world::{Event, World};

/// What was on a device's disk once.
pub(super) struct Image {
    local: Inline<Local>,
    incarnation: Incarnation,
    joined: bool,
    machine: Option<Machine>,
}

/// The files of a machine that may serve.
struct Machine {
    files: TempDir,
    /// What its master database should hold.
    line: Rc<Line>,
    /// A bit of its copy had changed.
    rotten: bool,
}

impl World {
    /// Somebody makes an image of a disk.
    pub(super) fn takes_image(&mut self) {
        let device = self.rng.random_range(0..self.devices.len());
        // Its server part would go on from what others have passed: see the report of this fault.
        let serves = self.houses.get(device).is_some_and(|own| own.runs(Part::Server));
        if serves && !self.options.server_images {
            return;
        }
        let machine = self.houses.get(device).map(|own| {
            let files = somewhere();
            copy_all(&own.directory, files.path());
            Machine { files, line: own.line.clone(), rotten: own.rotten }
        });
        let own = &self.devices[device];
        let local = own.db.image().expect("an image of a database");
        self.image =
            Some((device, Image { local, incarnation: own.incarnation, joined: own.joined, machine }));
        self.note(format_args!("an image is made of the disk of {device}"));
    }

    /// The disk of which there is an image is put back to it.
    pub(super) fn puts_back(&mut self) {
        let Some((device, image)) = self.image.take() else { return self.takes_image() };
        let serves = self.houses.get(device).is_some_and(|own| own.runs(Part::Server));
        // The one server there is, without another that holds its data: there is nothing to go on from.
        let own = &self.devices[device];
        let same_life = own.joined && image.joined && own.incarnation == image.incarnation;
        if (serves && !self.options.server_images) || !same_life {
            return;
        }
        self.counters.sometimes("disk put back to an earlier image");
        self.note(format_args!("the disk of {device} is put back to an earlier image"));
        let lasts = self.rng.random_range(SECOND..MINUTE);
        if device < self.houses.len() {
            self.power_cut(device, lasts);
        } else {
            self.stop_round(device);
            let boot = self.devices[device].boot;
            self.schedule(lasts, Event::ClientUp { device, boot });
        }
        let own = &mut self.devices[device];
        own.db = image.local;
        (own.put_back, own.floor) = (true, None);
        own.pushed.clear();
        let state = self.devices[device].read(|read| read.device());
        self.devices[device].low_water = state.low_water;
        self.history.forget_behind(image.incarnation, state.last_operation);
        if let Some(Machine { files, line, rotten }) = image.machine {
            let own = &mut self.houses[device];
            fs::remove_dir_all(&own.directory).expect("empty a disk");
            copy_all(files.path(), &own.directory);
            own.control = ControlFile::load(&own.directory).expect("a control file");
            (own.line, own.copy_put_back, own.rotten) = (line, true, rotten);
            if own.runs(Part::Server) {
                self.reigns.put_back = true;
                self.counters.sometimes("server put back to an earlier image");
            }
        }
    }

    /// A bit of a copy on a disk changes.
    pub(super) fn rots(&mut self, house: usize) {
        let entries = fs::read_dir(self.houses[house].standby_path()).expect("a directory");
        // What is not in the database yet would be lost with its log: that is another fault.
        let is_log = |path: &PathBuf| path.to_string_lossy().ends_with("-wal");
        let copies = entries.map(|entry| entry.expect("a file").path()).filter(|path| !is_log(path));
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let Some(copy) =
            copies.filter(|path| bytes(path) >= PAGE_BYTES as u64).max_by_key(|path| bytes(path))
        else {
            return;
        };
        let at = self.rng.random_range(0..bytes(&copy));
        let file = File::options().read(true).write(true).open(&copy).expect("a copy");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1 << self.rng.random_range(0..8)], at).expect("a byte");
        self.houses[house].rotten = true;
        self.note(format_args!("byte {at} of {:?} rots", copy.file_name()));
        self.counters.sometimes("bit of a copy changed");
    }

    /// A device that is not the server gets an empty disk, and is paired as a new one.
    pub(super) fn empties(&mut self) {
        let device = self.rng.random_range(0..self.devices.len());
        let serves = self.houses.get(device).is_some_and(|own| own.runs(Part::Server));
        let last_copy = self.servers().is_empty();
        if serves || last_copy || !self.devices[device].joined {
            return;
        }
        self.counters.sometimes("empty disk");
        self.note(format_args!("device {device} gets an empty disk"));
        let lasts = self.rng.random_range(SECOND..MINUTE);
        if device < self.houses.len() {
            self.power_cut(device, lasts);
            let directory = self.houses[device].directory.clone();
            fs::remove_dir_all(&directory).expect("empty a disk");
            let off = House::new(directory, Rc::new(Line::new(self.swarm.user_items)));
            let boot = self.houses[device].boot;
            self.houses[device] = House { boot, off: true, ..off };
        } else {
            self.stop_round(device);
        }
        let incarnation = self.devices[device].incarnation;
        self.ends_life(incarnation);
        self.history.forget_all(device);
        let life = Incarnation(self.rng.random_range(1..1 << 62));
        let own = &mut self.devices[device];
        let mut db = Inline::in_memory().expect("memory database");
        let id = own.id;
        db.write(|write: &mfpsync_storage::local::LocalWrite<'_>| write.initialise(life, id))
            .expect("initialise");
        (own.db, own.incarnation, own.joined) = (db, life, false);
        (own.put_back, own.floor, own.low_water) = (false, None, OperationNumber::default());
        own.pushed.clear();
        self.schedule(lasts + SECOND, Event::Join { device });
    }

    /// A life of a device is over: what of it the present server lacks is gone, and what the reign lacks that was
    /// decided on last, whose machine may be off.
    pub(super) fn ends_life(&mut self, incarnation: Incarnation) {
        let present = self.present_server().map(|server| self.houses[server].line.clone());
        let last = self.houses.iter().map(|own| own.line.clone()).max_by_key(|line| line.epoch);
        let held: Vec<Rc<Line>> =
            present.map_or_else(Vec::new, |present| last.into_iter().chain([present]).collect());
        self.history.withdraw(incarnation, &held);
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a file");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copy a file");
        }
    }
}
