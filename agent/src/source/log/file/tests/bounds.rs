//! What is remembered of files that are gone.

use super::*;
use crate::source::log::file::departed::MOST;

fn remembered(world: &mut World) -> Vec<usize> {
    let thread = &world.agent().thread;
    let input = &thread.inputs[0];
    vec![
        input.left.len(),
        input.floors.len(),
        input.departed.len(),
        thread.aliases.len(),
        thread.copies.len(),
    ]
}

fn forget(world: &mut World) {
    let much_later = Instant::now() + Duration::from_secs(3_600);
    world.agent().thread.forget_departed(much_later);
    world.agent().thread.scan();
}

#[test]
fn of_ten_thousand_dated_files_that_came_and_went_little_is_remembered() {
    let mut world = World::new(1, 1, "*");
    let root = world.logs.path().canonicalize().unwrap();
    for batch in 0..20 {
        for n in 0..500 {
            fs::write(root.join(format!("app-{batch}-{n}.log")), format!("{batch} {n}\n")).unwrap();
        }
        let expected = 500 * (batch + 1);
        world.until("their lines", |world| world.backend.streams.len() == expected);
        for n in 0..500 {
            fs::remove_file(root.join(format!("app-{batch}-{n}.log"))).unwrap();
        }
        world.until("them to be forgotten", |world| {
            world.settle(usize::MAX);
            world.agent().thread.known.len() == 1
        });
    }
    assert!(remembered(&mut world).iter().all(|many| *many <= MOST + 1), "{:?}", remembered(&mut world));
    forget(&mut world);
    assert_eq!(remembered(&mut world), [0; 5]);
    assert_eq!(world.agent().checkpoints.sources("app").len(), 1);
    assert_eq!(world.backend.streams.values().map(BTreeMap::len).sum::<usize>(), 10_000);
}

#[test]
fn of_links_that_came_and_went_nothing_is_remembered_and_of_one_that_moves_little() {
    let real = tempfile::tempdir().unwrap();
    let mut world = World::new(1, 1, "*");
    let root = world.logs.path().canonicalize().unwrap();
    let moving = root.join("moving.log");
    for n in 0..100 {
        let (to, link) = (real.path().join(format!("{n}.log")), root.join(format!("link{n}.log")));
        fs::write(&to, format!("{n}\n")).unwrap();
        std::os::unix::fs::symlink(&to, &link).unwrap();
        let _ = fs::remove_file(&moving);
        let other = real.path().join(format!("moving{n}.log"));
        fs::write(&other, format!("moving {n}\n")).unwrap();
        std::os::unix::fs::symlink(&other, &moving).unwrap();
        world.until("its lines", |world| {
            world.backend.lines(&link).len() == 1 && world.backend.lines(&moving).len() == n + 1
        });
        fs::remove_file(&link).unwrap();
        fs::remove_file(&to).unwrap();
    }
    world.until("them to be forgotten", |world| {
        world.settle(usize::MAX);
        world.agent().thread.known.iter().all(|g| !g.label.to_string_lossy().contains("link"))
    });
    forget(&mut world);
    let remembered = remembered(&mut world);
    assert!(remembered.iter().all(|many| *many < 10), "{remembered:?}");
}
