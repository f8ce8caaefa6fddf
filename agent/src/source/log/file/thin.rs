//! The first, thin reader: polls, knows files by device and inode, reads what is appended.

use super::{FileStatus, Parts, Pattern, Start, Status};
use crate::source::log::checkpoints::{Described, Place, Print, SourceId, SourceKind};
use crate::source::log::cutter::{BLOCK_LINGER, BLOCK_TEXT_BYTES, Cutter};
use crate::source::log::origin::Range;
use crate::source::log::shape::{Chunk, End, Shaper};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

struct Known {
    input: usize,
    id: SourceId,
    path: PathBuf,
    offset: u64,
    last_ns: i64,
    size: u64,
    labels: Vec<(String, String)>,
}

pub(super) fn run(parts: Parts, status: &Mutex<Status>) {
    let mut cutter = Cutter::new(parts.checkpoints.clone(), parts.intake, parts.configuration);
    let mut shapers: Vec<Shaper> = parts.inputs.iter().map(|(input, _)| Shaper::new(&input.shape)).collect();
    let mut known: HashMap<(usize, u64, u64), Known> = HashMap::new();
    let mut buffer = vec![0; 256 << 10];
    let lines = parts.registry.counter("pegel_log_bytes_read_total", "Bytes read from log files.", &[]);
    let mut round = 0_u32;
    while !parts.shutdown.is_cancelled() {
        if round.is_multiple_of(50) {
            for (nth, (input, settings)) in parts.inputs.iter().enumerate() {
                for pattern in &settings.include {
                    walk(pattern, pattern.root(), Path::new("/"), &mut |path| {
                        let Ok(meta) = std::fs::metadata(path) else { return };
                        let key = (nth, meta.dev(), meta.ino());
                        if settings.leaves_out(path) || known.contains_key(&key) || !meta.is_file() {
                            return;
                        }
                        let sources = parts.checkpoints.sources(&input.name);
                        let found = sources.iter().find(|(_, d)| (d.device, d.inode) == (key.1, key.2));
                        let id = found.map_or_else(
                            || {
                                let id = parts.checkpoints.source(Described {
                                    input: input.name.as_str().into(),
                                    kind: SourceKind::File,
                                    path: path.into(),
                                    device: key.1,
                                    inode: key.2,
                                    born_ns: 0,
                                    print: Print::default(),
                                });
                                if settings.start == Start::End && sources.is_empty() {
                                    let place = Place { offset: meta.len(), ..Place::default() };
                                    parts.checkpoints.put(id, place);
                                }
                                id
                            },
                            |(id, _)| *id,
                        );
                        let place = parts.checkpoints.place(id);
                        let mut labels = input.labels.clone();
                        labels.entry("job".to_owned()).or_insert_with(|| input.name.clone());
                        labels.insert("filename".to_owned(), path.display().to_string());
                        known.insert(
                            key,
                            Known {
                                input: nth,
                                id,
                                path: path.to_owned(),
                                offset: place.offset,
                                last_ns: place.last_ns,
                                size: 0,
                                labels: labels.into_iter().collect(),
                            },
                        );
                    });
                }
            }
        }
        round = round.wrapping_add(1);
        let mut more = false;
        for file in known.values_mut() {
            let Ok(open) = File::open(&file.path) else { continue };
            file.size = open.metadata().map_or(0, |m| m.len());
            let Ok(read) = open.read_at(&mut buffer, file.offset) else { continue };
            let mut rest = &buffer[..read];
            loop {
                let chunk = Chunk {
                    bytes: rest,
                    offset: file.offset,
                    base_ns: cutter.begin(),
                    floor_ns: file.last_ns,
                    end: End::More,
                    again: false,
                };
                let shaped =
                    shapers[file.input].shape(&file.labels, chunk, BLOCK_TEXT_BYTES, cutter.builder());
                cutter.cover(Range {
                    source: file.id,
                    from: file.offset,
                    to: file.offset + shaped.consumed as u64,
                    floor_ns: file.last_ns,
                    last_ns: shaped.last_ns,
                    entries: shaped.entries,
                    ..Range::default()
                });
                file.offset += shaped.consumed as u64;
                file.last_ns = shaped.last_ns;
                lines.add(shaped.consumed as u64);
                rest = &rest[shaped.consumed..];
                if !shaped.full {
                    break;
                }
                if cutter.cut_blocking().is_err() {
                    return;
                }
            }
            more |= read == buffer.len();
        }
        if !cutter.is_empty() && cutter.cut_blocking().is_err() {
            return;
        }
        *status.lock() = Status {
            known: known.len(),
            files: known
                .values()
                .map(|file| FileStatus {
                    input: parts.inputs[file.input].0.name.clone(),
                    path: file.path.display().to_string(),
                    bytes: file.size,
                    offset: file.offset,
                    lag_bytes: file.size.saturating_sub(file.offset),
                    lag_seconds: 0.0,
                    state: "reading",
                })
                .collect(),
        };
        if !more {
            std::thread::sleep(BLOCK_LINGER);
        }
    }
}

fn walk(pattern: &Pattern, progress: super::pattern::Progress, dir: &Path, found: &mut dyn FnMut(&Path)) {
    if let Some(name) = pattern.only_name(progress) {
        let (path, next) = (dir.join(name), pattern.step(progress, name));
        if pattern.accepts(next) && path.is_file() {
            found(&path);
        } else if path.is_dir() {
            walk(pattern, next, &path, found);
        }
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, next) = (entry.path(), pattern.step(progress, &entry.file_name()));
        if path.is_dir() {
            if pattern.leads_on(next) {
                walk(pattern, next, &path, found);
            }
        } else if pattern.accepts(next) {
            found(&path);
        }
    }
}
