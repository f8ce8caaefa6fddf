//! Where a message in a stream ends (RFC 6587): a count of bytes before each, or a line feed behind each. Which of
//! the two is told by how a message begins, each time anew.

/// The most digits of a count.
const MAX_DIGITS: usize = 7;

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, up to the limit.
    pub bytes: Vec<u8>,
    /// It was longer.
    pub cut: bool,
}

/// Cuts a stream into messages.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where what was not given yet begins.
    from: usize,
    limit: usize,
    passing: Passing,
}

/// What is passed over of a message that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Nothing,
    Bytes(usize),
    Line,
}

impl Framer {
    /// For messages of at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), from: 0, limit, passing: Passing::Nothing }
    }

    /// Takes bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.from));
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait for the end of their message.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.from
    }

    /// The next message.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.pass();
            if self.passing != Passing::Nothing {
                return None;
            }
            let frame = match begin(self.rest()) {
                Begin::Unknown => return None,
                Begin::Counted { prefix, length } => self.counted(prefix, length)?,
                Begin::Line => self.line()?,
            };
            if !frame.bytes.iter().all(u8::is_ascii_whitespace) {
                return Some(frame);
            }
        }
    }

    /// What is left at the stream's end: a message without a line feed, or a part of a counted one.
    pub fn end(&mut self) -> Option<Frame> {
        if self.passing != Passing::Nothing {
            return None;
        }
        let mut part = false;
        if let Begin::Counted { prefix, .. } = begin(self.rest()) {
            self.from += prefix;
            part = true;
        }
        let mut bytes = self.take(self.waiting(), 0);
        let cut = part || bytes.len() > self.limit;
        bytes.truncate(self.limit);
        let empty = bytes.iter().all(u8::is_ascii_whitespace);
        (!empty).then_some(Frame { bytes, cut })
    }

    /// Passes over what is left of a message that was cut.
    fn pass(&mut self) {
        match self.passing {
            Passing::Nothing => {}
            Passing::Bytes(left) => {
                let passed = left.min(self.waiting());
                self.from += passed;
                self.passing = if passed < left { Passing::Bytes(left - passed) } else { Passing::Nothing };
            }
            Passing::Line => match line_end(self.rest()) {
                Some(end) => {
                    self.from += end + 1;
                    self.passing = Passing::Nothing;
                }
                None => self.from = self.buffer.len(),
            },
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.from..]
    }

    /// Takes bytes, and passes over some behind them.
    fn take(&mut self, length: usize, behind: usize) -> Vec<u8> {
        let bytes = self.buffer[self.from..self.from + length].to_vec();
        self.from += length + behind;
        bytes
    }

    fn counted(&mut self, prefix: usize, length: usize) -> Option<Frame> {
        let kept = length.min(self.limit);
        if self.waiting() < prefix + kept {
            return None;
        }
        self.from += prefix;
        let bytes = self.take(kept, 0);
        if kept < length {
            self.passing = Passing::Bytes(length - kept);
        }
        Some(Frame { bytes, cut: kept < length })
    }

    fn line(&mut self) -> Option<Frame> {
        match line_end(self.rest()) {
            Some(end) => {
                let kept = end.min(self.limit);
                let mut bytes = self.take(kept, end - kept + 1);
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
                Some(Frame { bytes, cut: kept < end })
            }
            None if self.waiting() > self.limit => {
                let bytes = self.take(self.limit, 0);
                self.passing = Passing::Line;
                Some(Frame { bytes, cut: true })
            }
            None => None,
        }
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr2(b'\n', b'\0', bytes)
}

/// How a message begins.
fn begin(bytes: &[u8]) -> Begin {
    let digits = bytes.iter().take(MAX_DIGITS + 1).take_while(|b| b.is_ascii_digit()).count();
    if bytes.is_empty() {
        return Begin::Unknown;
    }
    if digits == 0 || digits > MAX_DIGITS || bytes[0] == b'0' {
        return Begin::Line;
    }
    // A line may begin with a number, too; a counted message is one that begins as a message does.
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (Some(b' '), Some(b'<')) => {
            let length = bytes[..digits].iter().fold(0, |n, b| 10 * n + usize::from(b - b'0'));
            Begin::Counted { prefix: digits + 1, length }
        }
        (None, _) | (Some(b' '), None) => Begin::Unknown,
        _ => Begin::Line,
    }
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    Unknown,
    Line,
    Counted { prefix: usize, length: usize },
}
