//! Bodies and the blocks that they come to.
