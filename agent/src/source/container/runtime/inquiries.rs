//! Which containers still have to be asked about, and whether an answer still counts.
//!
//! An event about a container says that it changed, not how it is: the runtime is asked. While such a question is on
//! its way the container may change again; then the answer may be the state before the change, and it is thrown away
//! and the question put again. So what is kept is never older than the last event.

use super::roster::MAX_CONTAINERS;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How many questions are on their way at once: few enough that neither the runtime nor our memory notices (an answer
/// is some 10 KiB), and enough that 200 containers are known within a second or two.
const AT_ONCE: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Waiting,
    OnItsWay,
    Overtaken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inquiries<K> {
    waiting: VecDeque<K>,
    open: HashMap<K, Asked>,
    on_their_way: usize,
}

impl<K: Hash + Eq + Clone> Inquiries<K> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), open: HashMap::new(), on_their_way: 0 }
    }

    /// Something is to be asked about, from now on at the earliest. Says whether there was room to note it.
    pub(super) fn want(&mut self, key: K) -> bool {
        match self.open.get_mut(&key) {
            Some(Asked::Waiting | Asked::Overtaken) => true,
            Some(asked @ Asked::OnItsWay) => {
                *asked = Asked::Overtaken;
                true
            }
            None => {
                let room = self.open.len() < 2 * MAX_CONTAINERS;
                if room {
                    self.open.insert(key.clone(), Asked::Waiting);
                    self.waiting.push_back(key);
                }
                room
            }
        }
    }

    /// The next question, if it may be put now.
    pub(super) fn next(&mut self) -> Option<K> {
        if self.on_their_way >= AT_ONCE {
            return None;
        }
        let key = self.waiting.pop_front()?;
        self.open.insert(key.clone(), Asked::OnItsWay);
        self.on_their_way += 1;
        Some(key)
    }

    /// An answer came, or none will. Says whether it counts; if not, the question will be put again.
    pub(super) fn answered(&mut self, key: &K) -> bool {
        self.on_their_way = self.on_their_way.saturating_sub(1);
        let overtaken = self.open.remove(key) == Some(Asked::Overtaken);
        if overtaken {
            self.want(key.clone());
        }
        !overtaken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_put_once_however_often_it_is_wanted() {
        let mut inquiries = Inquiries::new();
        assert!(inquiries.want("a") && inquiries.want("a") && inquiries.want("b"));
        assert_eq!((inquiries.next(), inquiries.next(), inquiries.next()), (Some("a"), Some("b"), None));
        assert!(inquiries.answered(&"a") && inquiries.answered(&"b"));
        assert!(inquiries.open.is_empty());
    }

    #[test]
    fn an_answer_that_an_event_overtook_does_not_count_and_the_question_is_put_again() {
        let mut inquiries = Inquiries::new();
        inquiries.want("a");
        inquiries.next();
        assert!(inquiries.want("a") && inquiries.want("a"));
        assert!(!inquiries.answered(&"a"));
        assert_eq!(inquiries.next(), Some("a"));
        assert!(inquiries.answered(&"a") && inquiries.open.is_empty());
    }

    #[test]
    fn few_are_on_their_way_at_once_and_not_endlessly_many_wait() {
        let mut inquiries = Inquiries::new();
        let noted = (0..10 * MAX_CONTAINERS).filter(|n| inquiries.want(*n)).count();
        assert_eq!(noted, 2 * MAX_CONTAINERS);
        assert_eq!(std::iter::from_fn(|| inquiries.next()).count(), AT_ONCE);
        inquiries.answered(&0);
        assert_eq!(inquiries.next(), Some(AT_ONCE));
    }
}
