"""What every HTTP server of emp does alike: error form, who may call, listening, orderly end.

It knows no route and no Redis.
"""
