//! Files of counters, a kind a line: `/proc/net/rpc/nfs` and `/proc/net/rpc/nfsd` (fs/nfsd/stats.c,
//! net/sunrpc/stats.c).

use super::CollectError;
use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, lines, uint};

/// How many numbers follow a line's key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// So many.
    Exactly(usize),
    /// As many as the first says, which is at least this.
    Counted(usize),
    /// At least so many; what follows is not looked at.
    Leading(usize),
}

/// What is emitted of a line: the number's place behind the key, the metric, and the values of its labels.
pub(super) type Wanted = (usize, Metric, Vec<&'static str>);

/// A kind of line.
pub(super) struct Line {
    key: &'static [u8],
    shape: Shape,
    wanted: Vec<Wanted>,
    values: Vec<u64>,
}

impl Line {
    /// A line that begins with a key.
    pub(super) fn new(key: &'static str, shape: Shape, wanted: Vec<Wanted>) -> Self {
        let columns = wanted.iter().map(|(at, ..)| at + 1).max().unwrap_or(0);
        Self { key: key.as_bytes(), shape, wanted, values: vec![0; columns] }
    }

    /// A line whose counters are requests by their method; the first number is their count.
    pub(super) fn requests(
        key: &'static str,
        metric: &Metric,
        proto: &'static str,
        least: usize,
        methods: &[&'static str],
    ) -> Self {
        let wanted = methods.iter().enumerate().filter(|(_, method)| !method.is_empty());
        let wanted = wanted.map(|(at, method)| (at + 1, metric.clone(), vec![*method, proto]));
        Self::new(key, Shape::Counted(least), wanted.collect())
    }

    fn read<'a>(
        &mut self,
        text: Content<'_>,
        line: &[u8],
        columns: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), CollectError> {
        let (mut found, mut first) = (0usize, 0);
        for column in columns {
            if matches!(self.shape, Shape::Leading(count) if found == count) {
                break;
            }
            let value = uint(column).ok_or_else(|| text.bad("a counter is not a number", line))?;
            if found == 0 {
                first = value;
            }
            if let Some(place) = self.values.get_mut(found) {
                *place = value;
            }
            found += 1;
        }
        let fits = match self.shape {
            Shape::Exactly(count) | Shape::Leading(count) => found == count,
            Shape::Counted(least) => found > least && found as u64 - 1 == first,
        };
        if fits { Ok(()) } else { Err(text.bad("there are too few or too many counters", line)) }
    }
}

/// A file of such lines.
pub(super) struct RpcFile {
    file: PolledFile,
    lines: Vec<Line>,
}

impl RpcFile {
    /// A file, with what is read of it.
    pub(super) fn new(file: PolledFile, lines: Vec<Line>) -> Self {
        Self { file, lines }
    }

    /// Emits what the file says; a line that a kernel does not write is all zeros. Says whether the file is there.
    pub(super) fn emit(&mut self, out: &mut Emitter<'_>) -> Result<bool, CollectError> {
        let Some(text) = self.file.read_if_there()? else { return Ok(false) };
        for line in &mut self.lines {
            line.values.fill(0);
        }
        for line in lines(text.bytes) {
            let mut columns = fields(line);
            let key = columns.next().unwrap_or_default();
            if let Some(known) = self.lines.iter_mut().find(|known| known.key == key) {
                known.read(text, line, columns)?;
            }
        }
        for line in &self.lines {
            for (at, metric, labels) in &line.wanted {
                out.emit(metric, labels, line.values[*at] as f64);
            }
        }
        Ok(true)
    }
}
