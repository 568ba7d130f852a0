//! What happens to machines: they are lost, or their disks are put back to an earlier moment.

use super::scope::Model;
use super::state::{Base, Disk, Image, State, Who};

impl Model {
    pub(super) fn lose(&self, state: &mut State, who: Who) -> bool {
        if state.base(who).lost || state.base(who).disk == Disk::BLANK {
            return false;
        }
        // In the place of a lost spare machine there is another one.
        *state.base_mut(who) = Base { lost: who != Who::Spare, ..Base::new(Disk::BLANK) };
        self.silence(state, who);
        if who == Who::Spare {
            state.forget_spare();
        }
        state.losses += 1;
        true
    }

    pub(super) fn copy(&self, state: &mut State, who: Who) -> bool {
        if state.image != Image::None || state.base(who).lost {
            return false;
        }
        state.image = Image::Taken(who, state.base(who).disk);
        true
    }

    pub(super) fn put_back(&self, state: &mut State, who: Who) -> bool {
        let Image::Taken(of, disk) = state.image else { return false };
        if of != who || state.base(who).disk == disk {
            return false;
        }
        *state.base_mut(who) = Base::new(disk);
        state.image = Image::Used;
        self.silence(state, who);
        true
    }
}
