// Records what Knative itself decides, for engine/core/tests/knative_kpa.rs to replay: reads the
// traces that TRACES names, and writes them again with the decisions. README.md says how to run it.
package record

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/autoscaling"
	pav1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
	kpa "knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
	"knative.dev/serving/pkg/reconciler/autoscaling/resources"
)

var annotations = []string{"metric", "metric-aggregation-algorithm", "target",
	"target-utilization-percentage", "panic-threshold-percentage", "scale-down-delay", "activation-scale"}

var key = types.NamespacedName{Namespace: "n", Name: "r"}

type pods struct{ ready int }

func (p *pods) ReadyCount() (int, error)    { return p.ready, nil }
func (p *pods) NotReadyCount() (int, error) { return 0, nil }

// averages are those of the collector's windows, or of the row where it has them.
type averages struct {
	metrics.MetricClient
	row []string
}

func (a *averages) StableAndPanicConcurrency(key types.NamespacedName, now time.Time) (float64, float64, error) {
	if a.row[3] != "" {
		return number(a.row[3]), number(a.row[4]), nil
	}
	return a.MetricClient.StableAndPanicConcurrency(key, now)
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return value
}

// deciderAndMetric are made of "name=value" as a revision's are, by Knative's own resolution.
func deciderAndMetric(parameters []string) (*scaling.Decider, *pav1.Metric) {
	configMap, anns := map[string]string{}, map[string]string{autoscaling.ClassAnnotationKey: autoscaling.KPA}
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		configMap[name] = value
		for _, annotation := range annotations {
			if name == annotation {
				delete(configMap, name)
				anns[autoscaling.GroupName+"/"+name] = value
			}
		}
	}
	cfg, err := config.NewConfigFromMap(configMap)
	if err != nil {
		panic(err)
	}
	if err := autoscaling.ValidateAnnotations(context.Background(), cfg, anns); err != nil {
		panic(err)
	}
	pa := &pav1.PodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Annotations: anns}}
	decider := kpa.MakeDecider(pa, cfg)
	service := "service"
	if decider.Spec.TargetBurstCapacity == -1 {
		service = "" // resolveScrapeTarget
	}
	return decider, resources.MakeMetric(pa, service, cfg)
}

func record(lines []string) {
	decider, metric := deciderAndMetric(strings.Fields(lines[0])[2:])
	logger := zap.NewNop().Sugar()
	collector := metrics.NewMetricCollector(func(*pav1.Metric, *zap.SugaredLogger) (metrics.StatsScraper, error) { return nil, nil }, logger)
	if err := collector.CreateOrUpdate(metric); err != nil {
		panic(err)
	}
	defer collector.Delete(key.Namespace, key.Name)
	start, scrape, before := time.Now(), time.Duration(0), 0.0
	client, endpoints := &averages{MetricClient: collector}, &pods{}
	var autoscaler scaling.UniScaler
	desired := 0
	for i, line := range lines[2:] {
		row := strings.Split(line, ",")
		at, load := time.Duration(number(row[0])*1e9), number(row[1])
		endpoints.ready, _ = strconv.Atoi(row[2])
		time.Sleep(time.Until(start.Add(at)))
		if autoscaler == nil {
			autoscaler = scaling.New(*attribute.EmptySet(), otel.GetMeterProvider(), key.Namespace, key.Name, client, endpoints, &decider.Spec)
			scrape, desired = at, endpoints.ready
		}
		for ; scrape <= at; scrape += time.Second {
			value := before
			if scrape == at {
				value = load
			}
			collector.Record(key, start.Add(scrape), metrics.Stat{PodName: "p", AverageConcurrentRequests: value, RequestCount: value})
		}
		client.row, before = row, load
		result := autoscaler.Scale(logger, time.Now())
		if result.ScaleValid {
			desired = int(result.DesiredPodCount)
		}
		lines[i+2] = fmt.Sprintf("%s,%d,%d", strings.Join(row[:5], ","), desired, result.ExcessBurstCapacity)
	}
}

// A bubble of synctest begins at an even second, and its clock moves when all in it sleep.
func TestRecord(t *testing.T) {
	for _, path := range strings.Fields(os.Getenv("TRACES")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		synctest.Test(t, func(*testing.T) { record(lines) })
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
