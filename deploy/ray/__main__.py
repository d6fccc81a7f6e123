"""`python -m deploy.ray`: the service on Ray Serve, here or on a cluster, until Ctrl-C."""

import argparse
import sys
from collections.abc import Sequence

from model.errors import KshotError

NAME = "kshot"  # of the application


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the settings and serve."""
    options = _parser().parse_args(arguments)
    try:
        import ray
        from ray import serve
    except ImportError:
        sys.stderr.write("Ray is not installed; pip install 'kshot[ray]'.\n")
        return 2
    from deploy.ray.app import Sizes, app
    from service.settings import Settings

    try:
        settings = Settings.from_env()
        ray.init(address=options.address)
        sizes = {name: value for name, value in vars(options).items() if name != "address"}
        serving = app(Sizes.model_validate(sizes))
        if options.direct:
            serve.start(proxy_location="Disabled")
        else:
            serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(serving, name=NAME, route_prefix="/", blocking=True)
    except KeyboardInterrupt:
        if options.address:
            serve.delete(NAME)  # other applications of the cluster go on
        else:
            serve.shutdown()
    except KshotError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ray",
        description="Serve on Ray. Settings are the variables KSHOT_<NAME> of the service; the "
        "store must be Redis.",
    )
    parser.add_argument("--address", help="of a Ray cluster; without it one starts here")
    parser.add_argument("--ingresses", type=int, default=1, help="most ingress replicas")
    parser.add_argument("--engines", type=int, default=1, help="most engine replicas")
    parser.add_argument("--ingress-cpus", type=float, default=1.0, help="of one ingress")
    parser.add_argument("--engine-cpus", type=float, default=1.0, help="of one engine")
    parser.add_argument("--engine-gpus", type=float, help="likewise; 1 where the cluster has some")
    parser.add_argument(
        "--direct", action="store_true", help="ingresses listen themselves, without Ray's proxy"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
