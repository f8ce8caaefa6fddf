//! Uplink and receiver over real QUIC on the loopback: what reaches the output is what was sent, whatever happens to
//! packets, aggregators and certificates between.

mod certificates;
mod delivery;
mod hostile;
mod site;
