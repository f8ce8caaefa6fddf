// The main program that cAdvisor's module leaves out of what the module proxy serves: cAdvisor's own manager, its own
// runtimes and its own Prometheus collectors, with the defaults of its own main program, behind one HTTP path.
// With -kubelet the labels are those of a kubelet's /metrics/cadvisor.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	info "github.com/google/cadvisor/info/v1"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"

	_ "github.com/google/cadvisor/container/containerd/install"
	_ "github.com/google/cadvisor/container/crio/install"
	_ "github.com/google/cadvisor/container/docker/install"
	_ "github.com/google/cadvisor/container/podman/install"
	_ "github.com/google/cadvisor/container/systemd/install"
)

// What cAdvisor's main program leaves out unless it is asked for.
var offByDefault = container.MetricSet{
	container.MemoryNumaMetrics:              struct{}{},
	container.NetworkTcpUsageMetrics:         struct{}{},
	container.NetworkUdpUsageMetrics:         struct{}{},
	container.NetworkAdvancedTcpUsageMetrics: struct{}{},
	container.CPUSetMetrics:                  struct{}{},
	container.ProcessSchedulerMetrics:        struct{}{},
	container.ProcessMetrics:                 struct{}{},
	container.HugetlbUsageMetrics:            struct{}{},
	container.ReferencedMemoryMetrics:        struct{}{},
	container.CPUTopologyMetrics:             struct{}{},
	container.ResctrlMetrics:                 struct{}{},
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	kubelet := flag.Bool("kubelet", false, "labels as of a kubelet")
	all := flag.Bool("all", false, "also what is off by default, as far as the kernel has it")
	flag.Parse()

	included := container.AllMetrics.Difference(offByDefault)
	if *all {
		included = container.AllMetrics.Difference(container.MetricSet{container.ResctrlMetrics: struct{}{}})
	}
	dynamic, interval := false, *manager.HousekeepingInterval
	housekeeping := manager.HousekeepingConfig{Interval: &interval, AllowDynamic: &dynamic}
	cache := memory.New(2*time.Minute, nil)
	observer, err := manager.New(cache, sysfs.NewRealSysFs(), housekeeping, included, http.DefaultClient, []string{"/"}, nil, "", 0)
	if err != nil {
		log.Fatalf("cannot make the manager: %v", err)
	}
	if err := observer.Start(); err != nil {
		log.Fatalf("cannot start the manager: %v", err)
	}
	labels := metrics.DefaultContainerLabels
	if *kubelet {
		labels = kubeletLabels
	}
	registry := prometheus.NewRegistry()
	options := v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}
	registry.MustRegister(
		metrics.NewPrometheusCollector(observer, labels, included, clock.RealClock{}, options),
		metrics.NewPrometheusMachineCollector(observer, included),
	)
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// The labels that a kubelet gives: always all six, empty where nothing is known.
func kubeletLabels(about *info.ContainerInfo) map[string]string {
	set := map[string]string{
		"id":        about.Name,
		"name":      "",
		"image":     about.Spec.Image,
		"container": about.Spec.Labels["io.kubernetes.container.name"],
		"pod":       about.Spec.Labels["io.kubernetes.pod.name"],
		"namespace": about.Spec.Labels["io.kubernetes.pod.namespace"],
	}
	if len(about.Aliases) > 0 {
		set["name"] = about.Aliases[0]
	}
	return set
}
