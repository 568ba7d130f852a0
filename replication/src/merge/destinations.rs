//! Two different destinations for one address entry: both are kept.
//!
//! The later one stands in its field, the earlier one beside it under a marked name, for a person
//! to choose. Called by the field resolver when it is through with everything else.

use super::fields::Resolver;

/// Prefix of the fields that hold the destination which came second in a conflict, as in
/// `second.mail`.
pub const SECOND: &str = "second.";

/// Fields that together name one destination.
pub const DESTINATIONS: [&[&str]; 3] = [&["mail"], &["number"], &["host", "path"]];

/// Moves each destination that the edit replaced unseen to its marked place, unless the edit
/// fills that place itself; then, and if the place was taken, the history keeps the loser.
pub(super) fn keep_both(merge: &mut Resolver<'_>) {
    for names in DESTINATIONS {
        if !replaced_unseen(merge, names) {
            continue;
        }
        let filled = names.iter().any(|name| merge.given.contains(&second(name)));
        for name in names {
            if filled { give_up(merge, name) } else { move_aside(merge, name) }
        }
    }
}

fn second(name: &str) -> String {
    format!("{SECOND}{name}")
}

/// Whether the edit gives the field a new value.
fn sets(merge: &Resolver<'_>, name: &str) -> bool {
    merge.touched.contains(name) && merge.fields.get(name).is_some()
}

/// A destination counts as a whole: its path is nothing without its host.
fn replaced_unseen(merge: &Resolver<'_>, names: &[&str]) -> bool {
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    any(&|name| sets(merge, name)) && any(&|name| !merge.knows(name)) && any(&|name| differs(merge, name))
}

/// Whether a value stood there that no longer does.
fn differs(merge: &Resolver<'_>, name: &str) -> bool {
    let stood = merge.standing.fields.get(name);
    stood.is_some() && stood != merge.fields.get(name)
}

fn give_up(merge: &mut Resolver<'_>, name: &str) {
    if differs(merge, name) {
        merge.lost.assign(name, merge.standing.fields.get(name));
        merge.merged.insert(name.to_owned());
    }
}

fn move_aside(merge: &mut Resolver<'_>, name: &str) {
    let slot = second(name);
    let stood = merge.standing.fields.get(name);
    let displaced = merge.standing.fields.get(&slot);
    if differs(merge, name) {
        merge.merged.insert(name.to_owned());
    }
    merge.lost.remove(name);
    if displaced == stood {
        // Already there; if the edit removed it, it is put back, as something new to its author.
        merge.lost.remove(&slot);
    } else {
        if displaced.is_some() && displaced != merge.fields.get(name) {
            merge.lost.assign(&slot, displaced);
        }
        merge.touched.insert(slot.clone());
    }
    merge.fields.assign(&slot, stood);
}
