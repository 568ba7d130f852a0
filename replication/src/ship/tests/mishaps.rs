//! Single mishaps, each met at its worst moment; [`super`] mixes all of them.

use mfpsync_storage::physical::PageDigest;

use super::*;
use crate::frozen::record;

/// What the anchor holds besides where the server stands: what the replica lacks.
#[test]
fn what_is_kept_of_a_replica_is_frozen() {
    let mut lacking = PageSet::default();
    [1, 64, 65, 262_146].map(PageNumber).into_iter().for_each(|page| lacking.insert(page));
    let base = Position {
        group: GROUP,
        log: LogId([2; 16]),
        transaction: 300,
        pages: 270_000,
        digest: PageDigest::from_bytes([3; 16]),
        epoch: EPOCH,
        sequence: Sequence(1 << 40),
        chain: Chain([5; 32]),
    };
    let shipping = Shipping { base: Some(base), lacking: lacking.clone(), ..Shipping::default() };
    record("kept-v1.hex", &(base, lacking), &shipping.keep(), decode_kept);
}

/// Case 17. The anchor has the set with the place it is of, so neither is believed without the other.
#[test]
fn a_set_of_pages_that_is_lost_damaged_or_of_another_time_leaves_no_hole() {
    type Harm = fn(&Path, &[u8], &[u8]);
    let harms: [Harm; 4] = [
        |anchor, _, _| std::fs::remove_file(anchor).unwrap(),
        |anchor, _, now| std::fs::write(anchor, &now[..now.len() - 3]).unwrap(),
        |anchor, _, now| {
            let mut flipped = now.to_vec();
            flipped[now.len() / 2] ^= 1;
            std::fs::write(anchor, flipped).unwrap();
        },
        |anchor, earlier, _| std::fs::write(anchor, earlier).unwrap(),
    ];
    for (turn, harm) in harms.into_iter().enumerate() {
        let mut world = World::new();
        let anchor = |world: &World| {
            PathBuf::from(format!("{}-anchor", file(world.directory.path(), world.lives).display()))
        };
        world.write(0..400, 300, false);
        world.is_copied();
        world.store.truncate_log();
        world.write(0..1, 40, false);
        world.is_copied();
        let earlier = std::fs::read(anchor(&world)).unwrap();
        world.cut();
        // While it is away: folded, so that only the set knows of it, and more behind that.
        for item in [40, 140, 240] {
            world.write(item..item + 20, 300, false);
            world.store.truncate_log();
            world.write(item..item + 1, 300, false);
        }
        // Certainly not folded.
        world.write(300..301, 300, false);
        world.restart_between(true, |directory, life| {
            let anchor = PathBuf::from(format!("{}-anchor", file(directory, life).display()));
            let now = std::fs::read(&anchor).unwrap();
            harm(&anchor, &earlier, &now);
        });
        println!("harm {turn}");
        world.is_copied();
        world.write(5..9, 300, false);
        world.is_copied();
    }
}

/// Case 14: whatever a bit does to a part, the copy is what the server had, before or after it.
#[test]
fn a_bit_that_flips_on_the_way_is_never_committed() {
    let mut world = World::new();
    world.write(0..300, 60, false);
    world.is_copied();
    for turn in 0..48usize {
        world.write(7..8, 60, false);
        world.connect();
        let before = world.copy.as_ref().unwrap().position().unwrap().place();
        let mut flipped = false;
        for _ in 0..20 {
            world.server_hears();
            world.pump();
            let Some(mut message) = world.to_replica.pop_front() else { continue };
            if let ToReplica::Part { packed, .. } = &mut message {
                let bit = (turn * 7_919) % (packed.len() * 8);
                packed[bit / 8] ^= 1 << (bit % 8);
                flipped = true;
            }
            let copy = world.copy.as_mut().unwrap();
            // Refused, or not understood: the connection ends.
            let _refused = world.applying.as_mut().unwrap().take(copy, message);
            if flipped {
                break;
            }
        }
        assert!(flipped, "nothing was sent");
        let copy = world.copy.as_mut().unwrap();
        assert!(copy.verify(&|| false).unwrap(), "what was committed is not what its position says");
        assert!(copy.position().is_some_and(|now| now.place() >= before));
        world.cut();
        world.is_copied();
    }
}

/// Case 33.
#[test]
fn a_proof_under_load_sees_one_position_and_nothing_of_the_next() {
    let mut world = World::new();
    world.write(0..300, 300, false);
    world.is_copied();
    for round in 0..12 {
        let copy = world.copy.as_mut().unwrap();
        let position = copy.position().unwrap();
        let prover = copy.prover(|| false).unwrap();
        world.write(round * 20..round * 20 + 200, 3_000, round % 4 == 3);
        world.settle();
        // All of it would be folded, were it not for the proof.
        world.copy.as_mut().unwrap().rest().unwrap();
        let now = world.copy.as_ref().unwrap().position().unwrap();
        assert!(now.transaction > position.transaction);
        assert_eq!(prover.digest().unwrap(), position.digest);
        let head = prover.read(|read| read.founded_head()).unwrap();
        assert_eq!((head.sequence, head.chain), (position.sequence, position.chain));
        assert_eq!(prover.check().unwrap(), Vec::<String>::new());
        drop(prover);
        world.copy.as_mut().unwrap().rest().unwrap();
    }
    world.is_copied();
}

#[test]
fn a_copy_whose_position_file_is_damaged_is_compared_and_not_sent_anew() {
    let mut world = World::new();
    world.write(0..3_000, 300, false);
    world.is_copied();
    let first = world.bytes;
    for killed in [false, true] {
        world.write(40..60, 300, false);
        world.is_copied();
        let before = world.bytes;
        let known = world.copy.as_ref().unwrap().position().unwrap();
        world.restart_replica(killed, damage_place);
        // Which history it holds is known all the same: a server that lost some must not overwrite it.
        let found = world.copy.as_ref().unwrap().position().unwrap();
        assert_eq!((found.group, found.place(), found.chain), (known.group, known.place(), known.chain));
        assert_eq!(found.digest, known.digest);
        assert!(killed || found.log != known.log, "in which run it stands is not known");
        world.is_copied();
        assert!(world.bytes - before < first / 4, "{} of {first} bytes", world.bytes - before);
    }
}
