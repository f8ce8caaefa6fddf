//! The metrics of cgroups: names, types and labels are those of cAdvisor's `/metrics`.

use crate::source::reading::emit::Metric;

macro_rules! metrics {
    ($($kind:ident $field:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// All of them.
        #[derive(Debug)]
        pub(in super::super) struct Metrics {
            $(pub(in super::super) $field: Metric,)*
        }

        impl Metrics {
            /// Makes them.
            pub(in super::super) fn new() -> Self {
                Self { $($field: Metric::$kind($name, $help, &[$($label),*]),)* }
            }
        }
    };
}

metrics! {
    gauge last_seen "container_last_seen" [] "When the cgroup was last read, in seconds since the Unix epoch.";
    gauge created "container_creation_time_seconds" [] "When it was made, in seconds since the Unix epoch.";
    gauge started "container_start_time_seconds" [] "When it began, in seconds since the Unix epoch.";
    gauge health "container_health_state" [] "What its health check says: 1 healthy, 0 not (yet), -1 it has none.";

    gauge spec_cpu_period "container_spec_cpu_period" [] "The period of its processor quota, in microseconds.";
    gauge spec_cpu_quota "container_spec_cpu_quota" [] "Its processor quota in a period, in microseconds.";
    gauge spec_cpu_shares "container_spec_cpu_shares" [] "Its share of processor time under contention.";
    gauge spec_memory_limit "container_spec_memory_limit_bytes" [] "Its memory limit, 0 if it has none.";
    gauge spec_memory_swap "container_spec_memory_swap_limit_bytes" [] "Its swap limit, 0 if it has none.";
    gauge spec_memory_reservation "container_spec_memory_reservation_limit_bytes" [] "Memory kept for it, 0 if none is.";

    counter cpu_user "container_cpu_user_seconds_total" [] "Processor time in user mode.";
    counter cpu_system "container_cpu_system_seconds_total" [] "Processor time in the kernel.";
    counter cpu_usage "container_cpu_usage_seconds_total" ["cpu"] "Processor time, by processor or as a total.";
    counter cfs_periods "container_cpu_cfs_periods_total" [] "Periods in which it wanted to run.";
    counter cfs_throttled "container_cpu_cfs_throttled_periods_total" [] "Periods in which its quota ran out.";
    counter cfs_throttled_seconds "container_cpu_cfs_throttled_seconds_total" [] "Time for which its quota held it up.";
    counter cfs_bursts "container_cpu_cfs_burst_periods_total" [] "Periods in which it used more than its quota.";
    counter cfs_burst_seconds "container_cpu_cfs_burst_seconds_total" [] "Processor time used beyond its quota.";

    gauge load_running "container_cpu_load_average_10s" [] "Runnable tasks over the last ten seconds, times 1,000.";
    gauge load_waiting "container_cpu_load_d_average_10s" [] "Uninterruptible tasks over the last ten seconds, times 1,000.";
    gauge tasks "container_tasks_state" ["state"] "Tasks by what they do.";

    gauge memory_cache "container_memory_cache" [] "Page cache, in bytes.";
    gauge memory_rss "container_memory_rss" [] "Anonymous memory, in bytes.";
    gauge memory_kernel "container_memory_kernel_usage" [] "Memory of the kernel for it, in bytes.";
    gauge memory_mapped "container_memory_mapped_file" [] "Mapped files, in bytes.";
    gauge memory_swap "container_memory_swap" [] "Swap in use, in bytes.";
    counter memory_failcnt "container_memory_failcnt" [] "How often its usage reached its limit.";
    gauge memory_usage "container_memory_usage_bytes" [] "Memory in use, all of it.";
    gauge memory_max_usage "container_memory_max_usage_bytes" [] "The most memory that was in use.";
    gauge memory_working_set "container_memory_working_set_bytes" [] "Memory in use without inactive page cache.";
    gauge memory_active_file "container_memory_total_active_file_bytes" [] "Active page cache.";
    gauge memory_inactive_file "container_memory_total_inactive_file_bytes" [] "Inactive page cache.";
    counter memory_failures "container_memory_failures_total" ["failure_type", "scope"] "Page faults, its own or also those below it.";
    counter memory_high "container_memory_events_high_total" [] "How often it was slowed down at memory.high.";
    counter memory_max "container_memory_events_max_total" [] "How often its usage reached memory.max.";
    gauge memory_dirty "container_memory_file_dirty_bytes" [] "Page cache that is to be written.";
    gauge memory_writeback "container_memory_file_writeback_bytes" [] "Page cache that is being written.";
    counter memory_pgscan "container_memory_pgscan_total" [] "Pages looked at for reclaim.";
    counter memory_pgsteal "container_memory_pgsteal_total" [] "Pages reclaimed.";
    counter memory_refault_file "container_memory_workingset_refault_file_total" [] "File pages read again soon after reclaim.";
    counter memory_refault_anon "container_memory_workingset_refault_anon_total" [] "Anonymous pages read again soon after reclaim.";

    counter oom_events "container_oom_events_total" [] "Processes killed for want of memory.";

    counter read_bytes "container_fs_reads_bytes_total" ["device"] "Bytes read.";
    counter reads "container_fs_reads_total" ["device"] "Reads completed.";
    counter sector_reads "container_fs_sector_reads_total" ["device"] "Sectors read.";
    counter reads_merged "container_fs_reads_merged_total" ["device"] "Reads merged.";
    counter read_seconds "container_fs_read_seconds_total" ["device"] "Time that reads took.";
    counter write_bytes "container_fs_writes_bytes_total" ["device"] "Bytes written.";
    counter writes "container_fs_writes_total" ["device"] "Writes completed.";
    counter sector_writes "container_fs_sector_writes_total" ["device"] "Sectors written.";
    counter writes_merged "container_fs_writes_merged_total" ["device"] "Writes merged.";
    counter write_seconds "container_fs_write_seconds_total" ["device"] "Time that writes took.";
    gauge io_current "container_fs_io_current" ["device"] "Requests in progress.";
    counter io_seconds "container_fs_io_time_seconds_total" ["device"] "Time with requests in progress.";
    counter io_weighted_seconds "container_fs_io_time_weighted_seconds_total" ["device"] "Time times requests in progress.";
    counter cost_usage "container_fs_io_cost_usage_seconds_total" ["device"] "Device time used, by io.cost.";
    counter cost_wait "container_fs_io_cost_wait_seconds_total" ["device"] "Time waited for want of credit, by io.cost.";
    counter cost_indebt "container_fs_io_cost_indebt_seconds_total" ["device"] "Time in debt, by io.cost.";
    counter cost_indelay "container_fs_io_cost_indelay_seconds_total" ["device"] "Time delayed for debt, by io.cost.";
    counter blkio "container_blkio_device_usage_total" ["device", "major", "minor", "operation"] "Bytes by device and operation.";

    gauge fs_inodes_free "container_fs_inodes_free" ["device"] "Free inodes.";
    gauge fs_inodes "container_fs_inodes_total" ["device"] "All inodes.";
    gauge fs_limit "container_fs_limit_bytes" ["device"] "Bytes that the filesystem holds.";
    gauge fs_usage "container_fs_usage_bytes" ["device"] "Bytes in use: of the filesystem, or of a container's writable layer.";

    counter received_bytes "container_network_receive_bytes_total" ["interface"] "Bytes received.";
    counter received_packets "container_network_receive_packets_total" ["interface"] "Packets received.";
    counter received_dropped "container_network_receive_packets_dropped_total" ["interface"] "Packets dropped while receiving.";
    counter received_errors "container_network_receive_errors_total" ["interface"] "Errors while receiving.";
    counter sent_bytes "container_network_transmit_bytes_total" ["interface"] "Bytes sent.";
    counter sent_packets "container_network_transmit_packets_total" ["interface"] "Packets sent.";
    counter sent_dropped "container_network_transmit_packets_dropped_total" ["interface"] "Packets dropped while sending.";
    counter sent_errors "container_network_transmit_errors_total" ["interface"] "Errors while sending.";

    gauge processes "container_processes" [] "Processes.";
    gauge descriptors "container_file_descriptors" [] "Open file descriptors.";
    gauge sockets "container_sockets" [] "Open sockets.";
    gauge threads_max "container_threads_max" [] "The most threads allowed, 0 if there is no limit.";
    gauge threads "container_threads" [] "Threads.";
    gauge ulimits "container_ulimits_soft" ["ulimit"] "Soft limits of its first process; -1 for none.";

    counter hugetlb_failcnt "container_hugetlb_failcnt" ["pagesize"] "How often its usage of huge pages reached its limit.";
    gauge hugetlb_usage "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages in use.";
    gauge hugetlb_max_usage "container_hugetlb_max_usage_bytes" ["pagesize"] "The most huge pages that were in use.";

    counter pressure_cpu_stalled "container_pressure_cpu_stalled_seconds_total" [] "Time in which all tasks waited for a processor.";
    counter pressure_cpu_waiting "container_pressure_cpu_waiting_seconds_total" [] "Time in which some task waited for a processor.";
    counter pressure_memory_stalled "container_pressure_memory_stalled_seconds_total" [] "Time in which all tasks waited for memory.";
    counter pressure_memory_waiting "container_pressure_memory_waiting_seconds_total" [] "Time in which some task waited for memory.";
    counter pressure_io_stalled "container_pressure_io_stalled_seconds_total" [] "Time in which all tasks waited for I/O.";
    counter pressure_io_waiting "container_pressure_io_waiting_seconds_total" [] "Time in which some task waited for I/O.";
}
