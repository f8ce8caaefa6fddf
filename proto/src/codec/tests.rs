//! What the codec promises.
