// Command fakegpu is a device plugin that offers GPUs which do not exist.
//
// It speaks the kubelet's real device plugin protocol, so scheduling, limits and the environment that a
// container sees are those of a real cluster; only the hardware behind the device ids is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// vendor says how one kind of GPU shows itself inside a container.
type vendor struct {
	resource string
	env      string
	nodes    []string // device files that a container expects to find; each is backed by /dev/null
}

var vendors = map[string]vendor{
	"nvidia": {resource: "nvidia.com/gpu", env: "NVIDIA_VISIBLE_DEVICES"},
	"amd": {
		resource: "amd.com/gpu",
		env:      "AMD_VISIBLE_DEVICES",
		nodes:    []string{"/dev/kfd", "/dev/dri/renderD128"},
	},
}

// plugin serves the devices of one vendor on one node.
type plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	vendor
	devices []*pluginapi.Device
}

func newPlugin(v vendor, prefix string, count int) *plugin {
	p := &plugin{vendor: v}
	for i := range count {
		p.devices = append(p.devices, &pluginapi.Device{ID: fmt.Sprintf("%s-%d", prefix, i), Health: pluginapi.Healthy})
	}
	return p
}

func (p *plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	<-stream.Context().Done() // fake devices never change their health
	return nil
}

func (p *plugin) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		allocated := &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{p.env: strings.Join(container.DevicesIds, ",")},
		}
		for _, node := range p.nodes {
			allocated.Devices = append(allocated.Devices,
				&pluginapi.DeviceSpec{HostPath: "/dev/null", ContainerPath: node, Permissions: "rw"})
		}
		response.ContainerResponses = append(response.ContainerResponses, allocated)
	}
	return response, nil
}

// serve offers the devices until the context ends or the kubelet forgets the plugin.
//
// A kubelet that starts removes every socket in its plugin directory: a missing socket is therefore the
// signal to register again.
func (p *plugin) serve(ctx context.Context, directory string) error {
	socket := filepath.Join(directory, "fake-"+strings.ReplaceAll(p.resource, "/", "-")+".sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	defer server.Stop()
	pluginapi.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()

	if err := p.register(ctx, directory, filepath.Base(socket)); err != nil {
		return err
	}
	log.Printf("%s: %d devices registered", p.resource, len(p.devices))
	for ctx.Err() == nil {
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("the kubelet restarted: %w", err)
		}
		pause(ctx)
	}
	return nil
}

// keepServing serves until the context ends, whatever happens to the kubelet; a reason is logged once.
func (p *plugin) keepServing(ctx context.Context, directory string) {
	logged := ""
	for ctx.Err() == nil {
		if err := p.serve(ctx, directory); err != nil && err.Error() != logged {
			logged = err.Error()
			log.Printf("%s: %v; trying again", p.resource, err)
		}
		pause(ctx)
	}
}

func (p *plugin) register(ctx context.Context, directory, endpoint string) error {
	connection, err := grpc.NewClient("unix://"+filepath.Join(directory, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(connection).Register(ctx, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     endpoint,
		ResourceName: p.resource,
		Options:      &pluginapi.DevicePluginOptions{},
	})
	return err
}

// pause waits for a moment or for the end of the context.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond):
	}
}

func main() {
	directory := flag.String("plugin-dir", pluginapi.DevicePluginPath, "directory of the kubelet's plugin socket")
	node := flag.String("node", "", "name of the node, part of each device id")
	counts := map[string]*int{
		"nvidia": flag.Int("nvidia", 0, "number of nvidia.com/gpu devices"),
		"amd":    flag.Int("amd", 0, "number of amd.com/gpu devices"),
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var running sync.WaitGroup
	for name, count := range counts {
		if *count == 0 {
			continue
		}
		p := newPlugin(vendors[name], "GPU-fake-"+*node+"-"+name, *count)
		running.Go(func() {
			p.keepServing(ctx, *directory)
		})
	}
	running.Wait()
}
