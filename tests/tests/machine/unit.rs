//! The shipped unit file, under the systemd that it is for.
