"""gRPC: servicers, the interceptor, messages and the error table. With the client the only package that knows grpc."""
