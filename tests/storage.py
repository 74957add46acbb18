"""A local server of Google Cloud Storage's protocol, whose downloads name an object's generation.

    python -m tests.storage start --host=localhost --port=PORT --default-bucket=bucket

gcp-storage-emulator leaves that out. TensorStore reads an object again where some time has passed
since it wrote it, and then cannot write it: "Malformed StorageGeneration".
"""

import functools
from http import HTTPStatus

from gcp_storage_emulator import __main__ as program
from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects


def _with_generation(download):
    @functools.wraps(download)
    def named(request, response, storage, *args, **kwargs):
        download(request, response, storage, *args, **kwargs)
        if response.status != HTTPStatus.NOT_FOUND:
            bucket, name = request.params["bucket_name"], request.params["object_id"]
            response["x-goog-generation"] = storage.get_file_obj(bucket, name)["generation"]

    return named


objects.download = _with_generation(objects.download)
create_server = server.create_server

if __name__ == "__main__":
    program.main()
