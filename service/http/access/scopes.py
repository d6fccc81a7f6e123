"""The one table of what a route asks of a key; a route that is not here is answered to nobody.

None: no key is needed.
"""

from service.keys.key import Scope

SCOPES: dict[str, Scope | None] = {
    "livez": None,
    "readyz": None,
    "inferenceLive": None,
    "inferenceReady": None,
    "limits": "read",
    "usage": "read",
    "info": "read",
    "inferenceModel": "read",
    "listTasks": "read",
    "getTask": "read",
    "watchTask": "read",
    "clipFrames": "read",
    "exportTask": "read",
    "diagnoseTask": "read",
    "listInbox": "read",
    "queryFrames": "read",
    "answerQuery": "write",
    "classify": "classify",
    "timeline": "classify",
    "createTask": "write",
    "importTask": "write",
    "deleteTask": "write",
    "changeTask": "write",
    "describeLabel": "write",
    "addClips": "write",
    "putLabel": "write",
    "renameLabel": "write",
    "removeLabel": "write",
    "removeClip": "write",
    "metrics": "admin",  # it tells of all tenants together
    "servedModel": "admin",
    "swapModel": "admin",
}
# What is the same for everybody and whoever asks: health, the page, the OpenAPI document.
PUBLIC = {f"{v}/{name}" for v in ("", "/v1") for name in ("livez", "readyz")}
PUBLIC |= {"/v2/health/live", "/v2/health/ready"}
PUBLIC |= {"/", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
PUBLIC_FOLDERS = ("/page/", "/static-offline-docs/")
