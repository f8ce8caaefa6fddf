//! Files of containers: told by a feed, rotated by the runtime between the parts of a line.

use super::*;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// A container's file in the format of CRI; its note is its path.
fn followed(path: &Path) -> Followed {
    Followed {
        key: "c".to_owned(),
        path: path.to_owned(),
        labels: vec![("container".to_owned(), "web".to_owned())],
        shape: Some(shape::Settings { container: Some(shape::Container::Cri), ..shape::Settings::default() }),
        note: path.as_os_str().as_bytes().to_vec(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for what may fail")]
pub(super) fn remade(note: &[u8], _: &shape::Settings) -> Option<Followed> {
    Some(followed(Path::new(&std::ffi::OsString::from_vec(note.to_vec()))))
}

/// A runtime that writes lines of two outputs in parts.
struct Runtime {
    path: PathBuf,
    file: File,
    rotations: u64,
    at: u64,
    /// What is whole, in the order in which it was.
    lines: Vec<String>,
    open: [String; 2],
}

impl Runtime {
    fn new(path: PathBuf) -> Self {
        Self {
            file: appending(&path),
            path,
            rotations: 0,
            at: 0,
            lines: Vec::new(),
            open: [const { String::new() }; 2],
        }
    }

    fn part(&mut self, output: usize, text: &str, whole: bool) {
        self.at += 1;
        let (stream, tag) = (["stdout", "stderr"][output], if whole { "F" } else { "P" });
        writeln!(
            self.file,
            "2026-01-01T00:00:{:02}.{:09}Z {stream} {tag} {text}",
            self.at / 1_000,
            self.at % 1_000
        )
        .unwrap();
        self.open[output].push_str(text);
        if whole {
            self.lines.push(std::mem::take(&mut self.open[output]));
        }
    }

    /// As a kubelet does: renamed, and then the runtime opens a new one.
    fn rotate(&mut self) {
        self.rotations += 1;
        let aside = suffixed(&self.path, &format!(".20260101-{:06}", self.rotations));
        fs::rename(&self.path, aside).unwrap();
        self.file = appending(&self.path);
    }
}

fn world(seed: u64) -> (World, Runtime) {
    let mut world = World::new(seed, 0, "none");
    world.kill();
    world.include.clear();
    world.start();
    let runtime = Runtime::new(world.logs.path().canonicalize().unwrap().join("0.log"));
    (world, runtime)
}

impl World {
    fn follow(&mut self, runtime: &Runtime) {
        self.agent().thread.do_told(Told::Follow(0, Box::new(followed(&runtime.path))));
    }

    fn all_of(&mut self, runtime: &Runtime) {
        self.until("the last line", |world| world.backend.lines(&runtime.path).len() >= runtime.lines.len());
        // Sorted: a line of one output may become whole while one of the other that began before is not.
        let (mut arrived, mut written) =
            (self.backend.lines(&runtime.path), runtime.lines.iter().map(String::as_str).collect::<Vec<_>>());
        arrived.sort_unstable();
        written.sort_unstable();
        if arrived != written {
            let short = |text: &&&str| text.replace("xx", "");
            let only: Vec<_> =
                arrived.iter().filter(|line| !written.contains(line)).map(|t| short(&t)).collect();
            let lacks: Vec<_> =
                written.iter().filter(|line| !arrived.contains(line)).map(|t| short(&t)).collect();
            let (arrived, written) = (arrived.len(), written.len());
            self.fail(&format!(
                "{arrived} lines, where {written} were written: {only:#?}, where {lacks:#?} are missing"
            ));
        }
    }
}

#[test]
fn parts_of_lines_are_joined_across_rotations_and_kills() {
    for seed in seeds(40) {
        let (mut world, mut runtime) = world(seed);
        world.follow(&runtime);
        for nth in 0..80 {
            let output = world.rng.random_range(0..2);
            let whole = world.rng.random_bool(0.4);
            runtime.part(output, &format!("{nth}-{} ", "x".repeat(world.rng.random_range(0..200))), whole);
            match world.rng.random_range(0..20) {
                0 | 1 => runtime.rotate(),
                2 => {
                    world.kill();
                    world.start();
                    if world.rng.random_bool(0.5) {
                        world.follow(&runtime);
                    }
                }
                3..12 => {
                    world.turn();
                    world.deliver();
                    let some = world.rng.random_range(0..3);
                    world.settle(some);
                }
                _ => {}
            }
        }
        for output in 0..2 {
            runtime.part(output, "end", true);
        }
        world.all_of(&runtime);
    }
}

#[test]
fn what_was_rotated_before_anybody_told_of_a_container_is_read_first() {
    let (mut world, mut runtime) = world(1);
    for nth in 0..5 {
        runtime.part(0, &format!("line {nth}"), true);
        runtime.part(0, "half of ", false);
        runtime.rotate();
        runtime.part(0, &format!("line {nth} and a half"), true);
    }
    world.follow(&runtime);
    world.all_of(&runtime);
    assert_eq!(world.backend.lines(&runtime.path), runtime.lines);
}

#[test]
fn a_container_that_ended_while_the_agent_did_not_run_is_read_to_its_end() {
    let (mut world, mut runtime) = world(2);
    runtime.part(0, "one", true);
    world.follow(&runtime);
    world.all_of(&runtime);
    world.settle(usize::MAX);
    world.kill();
    runtime.part(1, "two", true);
    runtime.rotate();
    runtime.part(0, "three", true);
    // Nobody tells of it.
    world.start();
    world.all_of(&runtime);
}

#[test]
fn a_file_that_is_deleted_with_its_directory_is_read_to_its_end_and_one_that_nobody_saw_is_counted() {
    let (mut world, _) = world(3);
    let dir = world.logs.path().canonicalize().unwrap().join("pod");
    fs::create_dir(&dir).unwrap();
    let mut runtime = Runtime::new(dir.join("0.log"));
    runtime.part(0, "one", true);
    world.follow(&runtime);
    world.all_of(&runtime);
    // Longer than other files stay open.
    let idle = world.agent().thread.pace.idle_after * 3;
    let since = Instant::now();
    world.until("time passes", |_| since.elapsed() > idle);
    assert_eq!(world.agent().thread.open.len(), 1);
    runtime.part(0, "two", true);
    fs::remove_dir_all(&dir).unwrap();
    world.all_of(&runtime);
    let gone = followed(&dir.join("1.log"));
    let key = gone.key.clone();
    world.agent().thread.do_told(Told::Follow(0, Box::new(gone)));
    world.agent().thread.do_told(Told::Gone(0, key));
    world.until("all is let go", |world| {
        let thread = &mut world.agent().thread;
        thread.rescan = true;
        thread.inputs[0].followed.is_empty()
    });
    assert_eq!(world.agent().counted("pegel_log_unread_files_total"), 1);
    assert_eq!(world.agent().counted("pegel_log_lost_bytes_total"), 0);
}
